"""Long numbers that identify nobody: quantities, dates, mathematics, and numbers of things that are printed on them."""

from __future__ import annotations

import datetime
import ipaddress
import re

from stdnum import ean, isbn

_UNITS = (
    # Lengths, weights, times, data.
    "[kcmnµ]?m|(?:kilo)?met(?:re|er)s?|miles?|mi|ft|feet|inch(?:es)?|yards?|light years?|au|parsecs?|kg|grams?"
    "|tons?|tonnes?|lbs?|litres?|liters?|seconds?|secs?|ms|ns|years?|hours?|days?|[kmgtp]?b|[kmgtp]?i?bytes?|bits?"
    "|[kmgt]?hz|watts?|volts?|joules?|kelvin|degrees|pixels?|percent|%|°"
    # Money.
    "|usd|eur|gbp|inr|jpy|cny|rub|brl|idr|krw|dollars?|euros?|pounds?|rupees?|rs|yen|yuan|won|rupiah|rubles?|руб\\w*|reais"
    "|pesos?|lira|naira|[$€£¥₹₽₩]"
    # Counts, and what mathematics asks of a number.
    "|epoch|to date|people|persons?|inhabitants|users|views|followers|copies|million|billion|stars|atoms|cells"
    "|prime|binary|hex\\w*|decimal|octal|in words|(?:is )?(?:an? )?(?:prime|even|odd)"
)
_AFTER = re.compile(rf"\s?(?:{_UNITS})(?![^\W\d_])|\s*(?:[*^×÷]|=\s?\d)|\s/\s", re.IGNORECASE)
_SUBJECTS = (
    "isbn|ean|gtin|upc|barcode|asin|issn|doi|pmid|arxiv|cve|rfc|hs|sku|model|part|patent|version|build|zip|plz|postcode"
    "|unix|epoch|timestamp|population|gdp|distance|speed|circumference|km|constant|c(?=\\s*=)|lottery|lotto"
    "|prime|factorial|fibonacci|fermat|mersenne|sqrt|binary|hex|octal|decimal|max int|usd|eur|gbp|inr|rs"
)
_BEFORE = re.compile(
    rf"(?:(?<![^\W_])(?:{_SUBJECTS})(?![^\W\d_])(?:[\s:#=-]+\w{{1,12}}){{0,2}}[\s:#=-]*|[$€£¥₹₽₩]\s?|[\d)]\s*[*^=×÷]\s*|\d\s/\s)$",
    re.IGNORECASE,
)
_LONGEST = 100  # digits of a number that is looked at; Python converts no thousands of them
_LOOK_BACK = 64  # characters
_BOOK = re.compile(r"(?:97[89][- ]?)?\d{1,5}[- ]\d{1,7}[- ]\d{1,7}[- ][\dXx]")
_START_OF_WORD, _END_OF_WORD = re.compile(r"[\w-]+$"), re.compile(r"[\w-]+")
_HEXADECIMAL = re.compile(
    r"0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}",
    re.IGNORECASE,
)
_DECIMAL = re.compile(r"(?:0|[1-9]\d{0,2})\.\d{4,}")


def is_harmless(match: re.Match[str], *, products: bool = True) -> bool:
    """Whether a number identifies nobody, by its digits and by what stands beside it.

    Args:
        match: the number, as it was found in the text.
        products: whether numbers that are printed on every copy of a product (ISBN, EAN) count as harmless.
    """
    number, text = match.group(), match.string
    if is_harmless_alone(number, products=products) or _is_round(number) or _is_hexadecimal(match):
        return True
    subject = _BEFORE.search(text[max(0, match.start() - _LOOK_BACK) : match.start()])
    if subject and not products and re.match("isbn|ean|gtin|upc|barcode", subject.group(), re.IGNORECASE):
        return False
    return bool(subject or _AFTER.match(text, match.end()))


def is_harmless_alone(number: str, *, products: bool = True) -> bool:
    """Whether a number identifies nobody by its digits, whatever stands beside it; see `is_harmless`."""
    digits = re.sub(r"\D", "", number)
    if products and _is_product(number, digits):
        return True
    if number.isdecimal() and (_is_power_of_two(digits) or _is_pattern(digits) or _is_time(digits)):
        return True
    return bool(_DECIMAL.fullmatch(number)) or is_ip(number)


def groups_of(number: str) -> list[str]:
    """The digits of a number, as they are grouped."""
    return re.findall(r"\d+", number)


def is_ip(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_year(group: str) -> bool:
    return len(group) == 4 and 1000 <= int(group) <= 2100


def _is_product(number: str, digits: str) -> bool:
    """Whether it is an ISBN as it is printed, or the unbroken digits of an EAN or of an American UPC."""
    if _BOOK.fullmatch(number):
        return bool(isbn.is_valid(number))
    upc = len(digits) == 12 and digits.startswith("0")
    swiss = digits.startswith("756")  # persons, not products
    return number.isdigit() and (len(digits) == 13 or upc) and not swiss and bool(ean.is_valid(digits))


def _is_power_of_two(digits: str) -> bool:
    """Whether it is a power of two, or one beside it."""
    number = int(digits[:_LONGEST])
    return len(digits) <= _LONGEST and any(
        n > 0 and n & (n - 1) == 0 for n in (number - 1, number, number + 1)
    )


def _is_pattern(digits: str) -> bool:
    """Whether it is one digit again and again, a binary number, or all digits in their order."""
    return (
        len(set(digits)) == 1 or set(digits) <= {"0", "1"} or (len(digits) > 9 and digits in "0123456789" * 5)
    )


def _is_time(digits: str) -> bool:
    """Whether it is a date and a time of day without separators."""
    try:
        return len(digits) == 14 and 1900 <= datetime.datetime.strptime(digits, "%Y%m%d%H%M%S").year <= 2100
    except ValueError:
        return False


def _is_hexadecimal(match: re.Match[str]) -> bool:
    """Whether it is a part of a UUID, of a digest or of another number to the base of 16."""
    before = _START_OF_WORD.search(match.string[max(0, match.start() - _LOOK_BACK) : match.start()])
    after = _END_OF_WORD.match(match.string, match.end())
    word = f"{before.group() if before else ''}{match.group()}{after.group() if after else ''}"
    return bool(_HEXADECIMAL.fullmatch(word)) and not word.isdigit()


def _is_round(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if number[0] in "+(0":  # of a telephone, but for a group of a larger number
        return not digits.strip("0")
    return digits.endswith("000000") or len(digits.strip("0")) <= 3
