"""What identifies a person in a text, or gives access, replaced by placeholders.

It goes by shapes, check digits and the numbering plans of telephones, not by names. A number that identifies nobody
stays: see `harmless_numbers`.
"""

from __future__ import annotations

import functools
import importlib
import ipaddress
import re
from collections.abc import Callable, Collection

from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import luhn

from rerank_core.querylog.harmless_numbers import is_harmless, is_harmless_alone

EMAIL, IBAN, CARD, ID, PHONE, NUMBER, SECRET, IP = (
    f"({kind})" for kind in ("email", "iban", "card", "id", "phone", "number", "secret", "ip")
)
"""Placeholders, in round brackets: square ones would look like a tag in the model's input."""

_Match = re.Match[str]
_FEW = 4  # digits: no number that identifies a person has fewer
_FEWEST_DIGITS = 9  # of a number that identifies by its length alone
_FEWEST_OF_CARDS = 13
_FEWEST_DIALLED = 10  # of an unbroken number that is called a telephone's
_GAP = r"[ .\-‐‑–/]"
_EMAILS = (
    re.compile(r"[^\s@＠<>()\[\],;:\"]{1,64}[@＠](?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}"),
    # In an address of the web.
    re.compile(
        r"(?:[\w.!#$'*+^`{|}~-]|%(?!(?:25)*40)[0-9A-F]{2}){1,64}%(?:25)*40(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}",
        re.I,
    ),
)
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,4}"),  # JWT
    re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA|AIDA|AROA)[A-Z0-9]{16}\b"),  # AWS
    re.compile(
        r"\b(?:gh[pousr]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|npm_\w{30,}|pypi-[\w-]{40,}|hf_\w{30,})"
    ),
    re.compile(r"\bxox[a-z]-[\w-]{10,}|\bxapp-[\w-]{10,}|(?<=hooks\.slack\.com/services/)[\w/]{20,}"),
    re.compile(
        r"\bsk-(?:[A-Za-z0-9]{1,12}-){0,3}(?=[A-Za-z_]*\d)[\w-]{16,}"
    ),  # OpenAI, Anthropic and their likes
    re.compile(r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}"),  # Google
    re.compile(r"\b[srp]k_(?:live|test)_\w{10,}|\bwhsec_\w{20,}"),  # Stripe
    re.compile(
        r"\bSG\.[\w-]{16,}\.[\w-]{16,}|\bdo[opr]_v1_[a-f0-9]{40,}|\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{30,}"
    ),
    re.compile(r"\b\d{8,10}:AA[\w-]{30,}|\b(?:SK|AC)[0-9a-f]{32}\b"),  # Telegram, Twilio
    re.compile(r"(?<=://)[^\s/:@()]*:[^\s/@()]+(?=@)"),  # a password in an address
    re.compile(  # a value after the name of what gives access
        r"(?:passw(?:or)?d|pwd|api[_-]?key|access[_-]?key|secret|token)\w*[\"']?\s*[=:]\s*[\"']?(?:bearer )?"
        r"(?P<part>(?=\S*\d)(?=\S*[a-z])[^\s\"'()]{8,})|\bbearer (?P<bearer>(?=\S*\d)[^\s\"'()]{12,})",
        re.IGNORECASE,
    ),
)
_SECRET_LIKE = re.compile(r"\S{16}|://|passw|pwd|key|secret|token|bearer", re.IGNORECASE)
_IBAN = re.compile(
    rf"(?<![^\W_])[A-Za-z]{{2}}\d{{2}}{_GAP}?[A-Za-z0-9]{{4}}(?:{_GAP}?(?=[A-Za-z]{{0,3}}\d)[A-Za-z0-9]{{4}}){{1,6}}"
    rf"(?:{_GAP}?(?=[A-Za-z]{{0,2}}\d)[A-Za-z0-9]{{1,3}})?(?![^\W_])"
)
# The usual numbers of digits first: a longer one may be a card with something behind it.
_CARDS = tuple(
    re.compile(rf"(?<!\d)(?<!\d[.,/])\d(?:{_GAP}?\d){{{n - 1}}}(?!\d)") for n in (16, 15, 14, 19, 18, 17, 13)
)
# National ids with check digits: module of stdnum, and forms. 9: a digit, A: a letter, X: either; " ", ".",
# "_": what may stand between; "-", ",", "=": what must.
_IDS = (
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
_INTERNATIONAL = re.compile(r"(?<![\w+])\+ ?\(?\d(?:[ .\-‐‑–/()]{0,3}\d){8,14}(?!\d)")
_PHONES = (
    # With a trunk prefix, as in most countries.
    re.compile(r"(?<![\d.,:])(?<!\d[/\-])(?<!97[89] )\(?0[ \-]?\d(?:[ .\-‐‑–/()]{0,2}\d){7,13}(?![^\W_])"),
    # North American.
    re.compile(
        rf"(?<![\d.,:])(?:1{_GAP}?)?(?:\([2-9]\d\d\){_GAP}?|[2-9]\d\d{_GAP})[2-9]\d\d{_GAP}\d{{4}}(?![^\W_])"
    ),
)
# Countries in which people leave the trunk prefix out, or have none: the digits are grouped as the country does it.
_REGIONS = ("US", "IN", "CN", "BR", "RU", "MX", "TR", "IT", "ES", "PL")
_PHONE_LIKE = re.compile(r"\d(?:[ .\-‐‑–/()]{0,3}\d){8,}")
_HYPHENATED = re.compile(r"(?<![\w.,])(?<!\d[-‐‑–])\d+(?:[-‐‑–]\d+)+(?!\w)")
_DIGITS = re.compile(rf"(?<!\d)(?<!\d[.,])\d{{{_FEWEST_DIGITS},}}(?!\d)")
_DATE = re.compile(r"\d{1,2}([./\- ])\d{1,2}\1(?:(?:19|20)\d\d(?!\d)|\d{2,4}(?!\1?\d))")
_IPS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?=\w*:\w*:)[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3})(?![\w:]|\.\d)"
)


def mask(text: str, *, also: Collection[str] = ()) -> str:
    """`text` with placeholders for addresses of e-mail, numbers that identify a person, and what gives access.

    Masking twice changes nothing. Take the text through `rerank_core.text.clean` first: an invisible character
    inside a number would hide it.

    Args:
        text: any text.
        also: "ip" masks IP addresses, "product" ISBNs and EANs.
    """
    if (
        _count_digits(text) < _FEW
        and not any(sign in text for sign in "@＠%")
        and not _SECRET_LIKE.search(text)
    ):
        return text
    while (
        masked := _mask_once(text, frozenset(also))
    ) != text:  # a placeholder can uncover what was beside a number
        text = masked
    return text


def _mask_once(text: str, also: frozenset[str]) -> str:
    if _SECRET_LIKE.search(text):
        for pattern in _SECRETS:
            text = _replace(text, pattern, SECRET)
    for pattern in _EMAILS:
        text = _replace(text, pattern, EMAIL)
    if "ip" in also:
        text = _replace(text, _IPS, IP, _is_ip)
    if _count_digits(text) < _FEW:
        return text
    return _mask_numbers(text, products="product" not in also)


def _mask_numbers(text: str, *, products: bool) -> str:
    def harmful(accept: Callable[[_Match], bool]) -> Callable[[_Match], bool]:
        return lambda match: accept(match) and not is_harmless(match, products=products)

    digits = _count_digits(text)
    text = _replace(text, _IBAN, IBAN, _is_iban)
    for pattern in _CARDS if digits >= _FEWEST_OF_CARDS else ():
        text = _replace(text, pattern, CARD, functools.partial(_is_card, products=products))
    text = _replace(text, _INTERNATIONAL, PHONE, harmful(_is_phone))
    for fewest, pattern, is_valid in _ids():
        if digits >= fewest:
            text = _replace(text, pattern, ID, harmful(is_valid))
    text = _replace(text, _INSURANCE, ID)
    if digits < _FEWEST_DIGITS:
        return text
    for pattern in _PHONES:
        text = _replace(text, pattern, PHONE, harmful(_is_phone))
    if any(map(_is_dialled, _PHONE_LIKE.finditer(text))):  # the library takes a millisecond
        for region in _REGIONS:
            text = _mask_phones_of(region, text, harmful(_is_phone))
    text = _replace(text, _HYPHENATED, NUMBER, harmful(_is_long))
    return _replace(text, _DIGITS, NUMBER, harmful(_is_long))


def _replace(
    text: str, pattern: re.Pattern[str], placeholder: str, accept: Callable[[_Match], bool] = bool
) -> str:
    """Like `re.sub`, but after a match that is not accepted the search goes on inside it.

    Of a pattern with named groups only the group that matched is replaced.
    """
    parts, done, at = [], 0, 0
    while match := pattern.search(text, at):
        if accept(match):
            start, end = match.span(match.lastgroup or 0)
            parts += [text[done:start], placeholder]
            done = at = end
        else:
            at = match.start() + 1
    return "".join([*parts, text[done:]])


def _mask_phones_of(region: str, text: str, accept: Callable[[_Match], bool]) -> str:
    for found in reversed(list(PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING))):
        number = found.raw_string.strip()
        match = re.compile(rf"(?<!\d[.,:]){re.escape(number)}").search(text, found.start, found.end)
        if match and (len(number) >= _FEWEST_DIALLED or not number.isdigit()) and accept(match):
            text = f"{text[: match.start()]}{PHONE}{text[match.end() :]}"
    return text


@functools.cache
def _ids() -> tuple[tuple[int, re.Pattern[str], Callable[[_Match], bool]], ...]:
    """For each form of _IDS the digits that it has at least, its pattern, and whether a match is such a number."""
    return tuple(
        (
            form.count("9"),
            _form(form),
            functools.partial(_is_id, importlib.import_module(f"stdnum.{name}").is_valid),
        )
        for name, *forms in _IDS
        for form in forms
    )


def _form(form: str) -> re.Pattern[str]:
    places = "".join(_PLACES.get(place, place) for place in form)
    return re.compile(rf"(?<![^\W_])(?<!\d[.,\-‐‑–]){places}(?![^\W_])(?![\-‐‑–]\d)")


def _is_id(is_valid: Callable[[str], bool], match: _Match) -> bool:
    shown = match.group().upper()
    groups = _groups(shown)
    if len(groups) > 1 and (
        all(map(_is_year, groups)) or (len(set(map(len, groups))) == 1 and _goes_on(match))
    ):
        return False
    return is_valid(shown) or is_valid(re.sub(rf"{_GAP}|\+", "", shown))


def _goes_on(match: _Match) -> bool:
    """Whether more groups of as many digits stand beside it: it is a part of something longer."""
    size = len(_groups(match.group())[0])
    before, after = match.string[: match.start()], match.string[match.end() :]
    return bool(re.search(rf"\d{{{size}}}[ -]$", before) or re.match(rf"[ -]\d{{{size}}}(?!\d)", after))


def _is_ip(match: _Match) -> bool:
    try:
        return bool(ipaddress.ip_address(match.group()))
    except ValueError:
        return False


def _is_iban(match: _Match) -> bool:
    """The check digits are right; or mistyped, but there are too many digits for anything else of this shape."""
    compact = re.sub(_GAP, "", match.group()).upper()
    if not 15 <= len(compact) <= 34:
        return False
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    groups = _groups(match.group())
    return int(number) % 97 == 1 or sum(len(group) for group in groups if not _is_year(group)) >= 12


def _is_card(match: _Match, *, products: bool) -> bool:
    """Luhn's check digit is right, and a network has cards of these first digits and this length."""
    groups = _groups(match.group())
    digits = "".join(str(int(digit)) for group in groups for digit in group)
    sizes = [len(group) for group in groups]
    whole = min(sizes) >= 2 and max(sizes) >= 8  # as "41 11111111111111"
    even = whole or min(sizes[:-1], default=4) >= 4 or (len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0])
    if not even or all(map(_is_year, groups)) or is_harmless_alone(match.group(), products=products):
        return False
    if digits[0] == "2" and not 2200 <= int(digits[:4]) <= 2720:
        return False
    lengths = {
        "2": (16,),
        "3": (14, 15, 16),
        "4": (13, 16, 19),
        "5": range(13, 20),
        "6": range(13, 20),
        "8": (16,),
    }
    return len(digits) in lengths.get(digits[0], ()) and bool(luhn.is_valid(digits))


def _is_phone(match: _Match) -> bool:
    """It is neither a row of single digits nor a short number followed by years, and does not start with a date."""
    shown = match.group()
    groups = _groups(shown)
    if len(groups) == 2 and len(groups[0]) == len(groups[1]) and groups[0][:2] == groups[1][:2]:
        return False  # two numbers of a series
    single = 2 * len(groups) > sum(map(len, groups)) + 2
    return not single and not _DATE.match(shown) and not all(map(_is_year, groups[1:] or [""]))


def _is_dialled(match: _Match) -> bool:
    """Whether digits may be a telephone number without a trunk prefix: no version, years or row of short numbers."""
    groups = _groups(match.group())
    return "0" not in groups and not all(len(group) <= 2 or _is_year(group) for group in groups)


def _is_long(match: _Match) -> bool:
    """It has enough digits to identify a person or an account, beside years, and is no date."""
    groups = _groups(match.group())
    if len(groups) == 1:
        return True
    named = [group for group in groups if not _is_year(group)]  # "2024-00123" is a short number of that year
    return sum(map(len, named)) >= _FEWEST_DIGITS and not all(len(group) <= 2 for group in named)


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _groups(shown: str) -> list[str]:
    return re.findall(r"\d+", shown)


def _is_year(group: str) -> bool:
    return len(group) == 4 and 1000 <= int(group) <= 2100
