"""Numbers that states give to persons, by their written forms and by the check digits that `stdnum` knows."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable

from rerank_core.querylog.harmless_numbers import groups_of, is_year

# Module of python-stdnum, and the formats in which people write the number. 9: a digit, A: a letter, X: either;
# " ", ".", "_": optional separators; "-", ",", "=": required ones.
IDS = (
    ("us.ssn", "999-99-9999"),
    ("de.idnr", "99 999 999 999"),
    ("fr.nir", "9.99.99.9X.999.999.99"),
    ("it.codicefiscale", "AAA AAA XXAXX AXXXA"),
    ("es.dni", "99999999_A", "99.999.999_A"),
    ("es.nie", "A_9999999_A"),
    ("pl.pesel", "99999999999"),
    ("br.cpf", "999.999.999.99"),
    ("in_.aadhaar", "9999 9999 9999"),
    ("in_.pan", "AAAPA9999A"),
    ("cn.ric", "999999 99999999 999X"),
    ("tr.tckimlik", "99999999999"),
    ("nl.bsn", "9999-99-999"),
    ("se.personnummer", "999999-9999", "99999999-9999"),
    ("no.fodselsnummer", "999999 99999"),
    ("dk.cpr", "999999-9999"),
    ("fi.hetu", "999999X999X", "999999-999X"),
    ("be.nn", "99.99.99.999.99"),
    ("ch.ssn", "999.9999.9999.99"),
    ("cz.rc", "999999-9999", "999999-999"),
    ("ro.cnp", "9999999999999"),
    ("gb.nhs", "999-999-9999"),
    ("ie.pps", "9999999A", "9999999AA"),
    ("mx.curp", "AAAA999999AAAAAAX9"),
    ("cl.rut", "99,999,999=X", "9,999,999=X", "99999999=X"),
    ("za.idnr", "999999 9999 99 9"),
    ("kr.rrn", "999999-9999999"),
    ("jp.in_", "9999 9999 9999"),
    ("th.pin", "9 9999 99999 99 9"),
)
_PLACES = {
    "9": r"\d",
    "A": "[A-Za-z]",
    "X": r"[A-Za-z\d]",
    " ": r"[ \-‐‑–]?",
    ".": r"[. \-‐‑–]?",
    "_": r"[\-‐‑–]?",
    "-": r"[ .+/\-‐‑–]",
    ",": r"\.",
    "=": r"[\-‐‑–]",
}
# British national insurance numbers have no check digit.
_INSURANCE = re.compile(r"(?<![^\W_])[A-Za-z]{2} ?\d\d ?\d\d ?\d\d ?[A-Da-d](?![^\W_])")


@functools.cache
def finders() -> tuple[tuple[int, re.Pattern[str], Callable[[re.Match[str]], bool]], ...]:
    """For each form of IDS the digits that it has at least, its pattern, and whether a match is such a number."""
    checked = tuple(
        (
            form.count("9"),
            _form(form),
            functools.partial(_is_id, importlib.import_module(f"stdnum.{name}").is_valid),
        )
        for name, *forms in IDS
        for form in forms
    )
    return (*checked, (6, _INSURANCE, bool))


def _form(form: str) -> re.Pattern[str]:
    places = "".join(_PLACES.get(place, place) for place in form)
    return re.compile(rf"(?<![^\W_])(?<!\d[.,\-‐‑–]){places}(?![^\W_])(?![\-‐‑–]\d)")


def _is_id(is_valid: Callable[[str], bool], match: re.Match[str]) -> bool:
    # stdnum expects ASCII.
    shown = "".join(str(int(sign)) if sign.isdecimal() else sign for sign in match.group().upper())
    groups = groups_of(shown)
    if len(groups) > 1 and (
        all(map(is_year, groups)) or (len(set(map(len, groups))) == 1 and _goes_on(match))
    ):
        return False
    return is_valid(shown) or is_valid(re.sub(r"[ .+/\-‐‑–]", "", shown))


def _goes_on(match: re.Match[str]) -> bool:
    """Whether more groups of as many digits stand beside it: it is a part of something longer."""
    size = len(groups_of(match.group())[0])
    before, after = match.string[: match.start()], match.string[match.end() :]
    return bool(re.search(rf"\d{{{size}}}[ -]$", before) or re.match(rf"[ -]\d{{{size}}}(?!\d)", after))
