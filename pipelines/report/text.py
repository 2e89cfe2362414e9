"""Texts of users, documents and machines on a page: every character is seen, none acts on its neighbours."""

from __future__ import annotations

import datetime
import re
import unicodedata

from rerank_core.redact import redact

REPLACEMENT = "\ufffd"
_MARKS = 3  # combining marks on one letter: more than any script's ordinary words have
# Characters that order or hide what stands beside them, and controls; a page shows that there is one.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def legible(text: str | None, limit: int = 200) -> str:
    """A text of unknown origin for a page, of at most `limit` characters and an ellipsis.

    Controls and characters that change the direction of what follows are replaced by U+FFFD, marks piled on one letter
    beyond the third are dropped, and white space is folded. Markup is the template's affair: it escapes everything.
    """
    if text is None:
        return ""
    head = text[: 8 * limit]  # a text may have millions of characters
    seen = " ".join(_without_piles(_ACTING.sub(REPLACEMENT, head)).split())
    cut = len(text) > len(head) or len(seen) > limit
    return f"{seen[:limit].rstrip()}…" if cut else seen


def message(text: str, limit: int = 600) -> str:
    """A text that a run says about itself, which may quote what it met; secrets are taken out before it is cut."""
    return legible(redact(text), limit)


def _without_piles(text: str) -> str:
    if text.isascii():
        return text
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= _MARKS:
            kept.append(character)
    return "".join(kept)


# --- figures, each with its unit


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def points(share: float) -> str:
    """A change of a measure from 0 to 1, in points of a hundred, with its sign."""
    return _signed(f"{100 * share:+.1f}")


def share(value: float) -> str:
    """A share from 0 to 1 as a percentage; a small one keeps a digit, and what is not nothing is not shown as it."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{percent:.1f} %" if percent < 10 and percent != round(percent) else f"{percent:.0f} %"


def duration(seconds: float) -> str:
    """A duration in the largest units that it has two of."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def number(value: float | None) -> str:
    """A figure of unknown size to three significant digits."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.001:
        return "under 0.001" if value > 0 else "over −0.001"
    if float(value).is_integer() and abs(value) >= 1:
        return _signed(f"{value:,.0f}")
    return _signed(f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}")


def day(date: str) -> str:
    """A date as people write it: Sunday, 8 March 2026; what is no date stays as it is."""
    try:
        when = datetime.date.fromisoformat(date)
    except ValueError:
        return date
    return f"{when:%A}, {when.day} {when:%B %Y}"


def _signed(digits: str) -> str:
    return digits.replace("-", "−")
