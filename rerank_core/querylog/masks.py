"""What identifies a person in a text, or gives access, replaced by placeholders.

It goes by shapes, check digits and the numbering plans of telephones, not by names. A number that identifies nobody
stays: see `harmless_numbers`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection

from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import luhn

from rerank_core.querylog import credentials, national_ids
from rerank_core.querylog.harmless_numbers import groups_of, is_harmless, is_harmless_alone, is_ip, is_year

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
_IBAN = re.compile(
    rf"(?<![^\W_])[A-Za-z]{{2}}\d{{2}}{_GAP}?[A-Za-z0-9]{{4}}(?:{_GAP}?(?=[A-Za-z]{{0,3}}\d)[A-Za-z0-9]{{4}}){{1,6}}"
    rf"(?:{_GAP}?(?=[A-Za-z]{{0,2}}\d)[A-Za-z0-9]{{1,3}})?(?![^\W_])"
)
# The usual numbers of digits first: a longer one may be a card with something behind it.
_CARDS = tuple(
    re.compile(rf"(?<!\d)(?<!\d[.,/])\d(?:{_GAP}?\d){{{n - 1}}}(?!\d)") for n in (16, 15, 14, 19, 18, 17, 13)
)
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
    few = _count_digits(text) < _FEW
    if few and not any(sign in text for sign in "@＠%") and not credentials.MAYBE.search(text):
        return text
    masked = ""
    while masked != text:  # a placeholder can uncover what was beside a number
        masked, text = text, _mask_once(text, frozenset(also))
    return text


def _mask_once(text: str, also: frozenset[str]) -> str:
    if credentials.MAYBE.search(text):
        for pattern in credentials.PATTERNS:
            text = _replace(text, pattern, SECRET)
    for pattern in _EMAILS:
        text = _replace(text, pattern, EMAIL)
    if "ip" in also:
        text = _replace(text, _IPS, IP, lambda match: is_ip(match.group()))
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
    for fewest, pattern, is_valid in national_ids.finders():
        if digits >= fewest:
            text = _replace(text, pattern, ID, harmful(is_valid))
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


def _is_iban(match: _Match) -> bool:
    """The check digits are right; or mistyped, but there are too many digits for anything else of this shape."""
    compact = re.sub(_GAP, "", match.group()).upper()
    if not 15 <= len(compact) <= 34:
        return False
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    groups = groups_of(match.group())
    return int(number) % 97 == 1 or sum(len(group) for group in groups if not is_year(group)) >= 12


def _is_card(match: _Match, *, products: bool) -> bool:
    """Luhn's check digit is right, and a network has cards of these first digits and this length."""
    groups = groups_of(match.group())
    digits = "".join(str(int(digit)) for group in groups for digit in group)
    sizes = [len(group) for group in groups]
    whole = min(sizes) >= 2 and max(sizes) >= 8  # as "41 11111111111111"
    even = whole or min(sizes[:-1], default=4) >= 4 or (len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0])
    if not even or all(map(is_year, groups)) or is_harmless_alone(match.group(), products=products):
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
    groups = groups_of(shown)
    if len(groups) == 2 and len(groups[0]) == len(groups[1]) and groups[0][:2] == groups[1][:2]:
        return False  # two numbers of a series
    single = 2 * len(groups) > sum(map(len, groups)) + 2
    return not single and not _DATE.match(shown) and not all(map(is_year, groups[1:] or [""]))


def _is_dialled(match: _Match) -> bool:
    """Whether digits may be a telephone number without a trunk prefix: no version, years or row of short numbers."""
    groups = groups_of(match.group())
    return "0" not in groups and not all(len(group) <= 2 or is_year(group) for group in groups)


def _is_long(match: _Match) -> bool:
    """It has enough digits to identify a person or an account, beside years, and is no date."""
    groups = groups_of(match.group())
    if len(groups) == 1:
        return True
    named = [group for group in groups if not is_year(group)]  # "2024-00123" is a short number of that year
    return sum(map(len, named)) >= _FEWEST_DIGITS and not all(len(group) <= 2 for group in named)


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))
