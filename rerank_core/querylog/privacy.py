"""Privacy of the query log: personal data in queries and messages is masked, users are known by a hash alone.

A query log is personal data, and people type into a search box what they would not publish. `mask` replaces what
identifies a person by placeholders before the query's id is made, so two queries that differ only in such a number are
one query. It goes by shapes and check digits, not by names, and leaves years, dates, versions, decimals and round
numbers alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from rerank_core.text import clean

EMAIL, IBAN, CARD, PHONE, NUMBER = "(email)", "(iban)", "(card)", "(phone)", "(number)"
"""Placeholders, in round brackets: square ones would look like a tag in the model's input."""

_SHOWN_BITS = 332  # 100 digits; Python refuses to print integers of thousands
_SHOWN_CHARS = 4096  # of a bad value are masked, and a part of it is shown
_LONGEST_CUT = 1024  # characters at the end of that part that could belong to something cut in two
_FEWEST_DIGITS = 9  # in a text with fewer, only e-mail addresses are masked
_GAP = r"[ .\-‐‑–/]"
_EMAIL = re.compile(r"[^\s@＠<>()\[\],;:\"]{1,64}[@＠](?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}", re.UNICODE)
_IBAN = re.compile(
    rf"(?<![^\W_])[A-Za-z]{{2}}\d{{2}}{_GAP}?[A-Za-z0-9]{{4}}(?:{_GAP}?(?=[A-Za-z]{{0,3}}\d)[A-Za-z0-9]{{4}}){{1,6}}"
    rf"(?:{_GAP}?(?=[A-Za-z]{{0,2}}\d)[A-Za-z0-9]{{1,3}})?(?![^\W_])"
)
_CARD = re.compile(
    rf"(?<!\d)(?:\d{{13,19}}|\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}(?:{_GAP}\d{{3}})?"
    rf"|\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}})(?!\d)"
)
_PHONES = (
    # International.
    re.compile(r"(?<![\w+])\+ ?\(?\d(?:[ .\-‐‑–/()]{0,3}\d){8,14}(?!\d)"),
    # North American.
    re.compile(rf"(?<![\d.,:])(?:1{_GAP})?\(?[2-9]\d\d\)?{_GAP}{{1,2}}[2-9]\d\d{_GAP}\d{{4}}(?!\d)"),
    # With a trunk prefix, as in most other countries.
    re.compile(r"(?<![\d.,:])(?<!\d[/\-])\(?0\d(?:[ .\-‐‑–/()]{0,2}\d){7,13}(?!\d)"),
)
_HYPHENATED = re.compile(r"(?<![\w.,])(?<!\d[-‐‑–])\d+(?:[-‐‑–]\d+)+(?!\w)")
_DIGITS = re.compile(rf"(?<!\d)(?<!\d[.,])\d{{{_FEWEST_DIGITS},}}(?!\d)")
_DATE = re.compile(r"\d{1,2}([./\-])\d{1,2}\1\d{2,4}(?!\d)")


def mask(text: str) -> str:
    """`text` with e-mail addresses, IBANs, card and phone numbers and long numbers replaced by placeholders.

    Masking twice changes nothing. Take the text through `rerank_core.text.clean` first: an invisible character
    inside a number would hide it.
    """
    if "@" not in text and "＠" not in text and sum(map(str.isdigit, text)) < _FEWEST_DIGITS:
        return text
    while (masked := _mask_once(text)) != text:  # a placeholder can uncover what was next to a number
        text = masked
    return text


def shown(value: Any, *, limit: int = 80) -> str:
    """What a message or a dead letter shows of a bad value: the only way in which one may be quoted.

    A string is quoted with unprintable characters as escapes, masked whatever `privacy.mask` says, and cut after
    `limit` characters; a number is masked too. Of anything nested only the type is named: its keys and values may
    name a person in ways that no mask knows.
    """
    if isinstance(value, str):
        return _quoted(value, limit)
    if value is None or isinstance(value, bool | float):
        return mask(repr(value))
    if isinstance(value, int):
        return mask(str(value)) if value.bit_length() <= _SHOWN_BITS else "an integer of more than 100 digits"
    return f"a {type(value).__name__}"


def hash_user(user: str, salt: bytes) -> str:
    """The keyed hash by which a user is counted, 32 hex digits; "" for an unknown user."""
    if not user:
        return ""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16, key=salt).hexdigest()


def _quoted(text: str, limit: int) -> str:
    read = text[:_SHOWN_CHARS]
    visible = clean(read)
    masked = mask(visible)
    safe = (
        read if masked == visible else masked
    )  # an unchanged text keeps its invisible characters, to be escaped
    # What a long text was cut in may be a part of an address or a number, which no mask knows.
    safe = safe[:-_LONGEST_CUT] if len(read) < len(text) else safe
    if len(safe) <= limit and len(read) == len(text):
        return repr(safe)
    return f"{safe[:limit]!r}..."


def _mask_once(text: str) -> str:
    text = _EMAIL.sub(EMAIL, text)
    text = _replace(text, _IBAN, placeholder=IBAN, accept=_is_iban)
    text = _replace(text, _CARD, placeholder=CARD, accept=_is_card)
    for pattern in _PHONES:
        text = _replace(text, pattern, placeholder=PHONE, accept=_is_phone)
    text = _replace(text, _HYPHENATED, placeholder=NUMBER, accept=_is_long)
    return _replace(text, _DIGITS, placeholder=NUMBER, accept=_is_long)


def _replace(text: str, pattern: re.Pattern[str], *, placeholder: str, accept: Callable[[str], bool]) -> str:
    """Like `re.sub`, but after a match that is not accepted the search goes on inside it."""
    parts, done, at = [], 0, 0
    while match := pattern.search(text, at):
        if accept(match.group()):
            parts += [text[done : match.start()], placeholder]
            done = at = match.end()
        else:
            at = match.start() + 1
    return "".join([*parts, text[done:]])


def _is_iban(shown: str) -> bool:
    """The check digits are right; or mistyped, but there are too many digits for anything else of this shape."""
    compact = re.sub(_GAP, "", shown).upper()
    if not 15 <= len(compact) <= 34:
        return False
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return int(number) % 97 == 1 or sum(len(group) for group in _groups(shown) if not _is_year(group)) >= 12


def _is_card(shown: str) -> bool:
    """Luhn's check digit is right, and the first digit is one that card networks use."""
    digits = [int(character) for character in shown if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    years = all(_is_year(group) for group in _groups(shown))
    return digits[0] in (2, 3, 4, 5, 6) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and not years


def _is_phone(shown: str) -> bool:
    """It neither starts with a date nor is a short number followed by years."""
    return not _DATE.match(shown) and not all(_is_year(group) for group in _groups(shown)[1:] or [""])


def _is_long(shown: str) -> bool:
    """It has enough digits to identify a person or an account, and is neither years, a date nor a round number."""
    groups = _groups(shown)
    digits = "".join(groups)
    if len(digits) < _FEWEST_DIGITS or len(digits.strip("0")) <= 3:
        return False
    return not all(len(group) <= 2 or _is_year(group) for group in groups)


def _groups(shown: str) -> list[str]:
    return re.findall(r"\d+", shown)


def _is_year(group: str) -> bool:
    return len(group) == 4 and 1000 <= int(group) <= 2100
