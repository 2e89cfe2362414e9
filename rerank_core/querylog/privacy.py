"""Privacy of the query log: personal data in queries and messages is masked, users are known by a hash alone.

A query log is personal data, and people type into a search box what they would not publish. `mask` replaces what
identifies a person by placeholders before the query's id is made, so two queries that differ only in such a number are
one query. It goes by shapes and check digits, not by names, and leaves years, dates, versions, decimals and round
numbers alone.
"""

from __future__ import annotations

import hashlib
from typing import Any

from rerank_core.querylog.masks import mask as mask
from rerank_core.redact import redact
from rerank_core.text import clean

_SHOWN_BITS = 332  # 100 digits; Python refuses to print integers of thousands
_SHOWN_CHARS = 4096  # of a bad value are masked, and a part of it is shown
_LONGEST_CUT = 1024  # characters at the end of that part that could belong to something cut in two


def shown(value: Any, *, limit: int = 80) -> str:
    """What a message or a dead letter shows of a bad value: the only way in which one may be quoted.

    A string is quoted without secrets and with unprintable characters as escapes, masked whatever `privacy.mask`
    says, and cut after `limit` characters; a number is masked too. Of anything nested only the type is named: its keys
    and values may name a person in ways that no mask knows.
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
    whole = len(text) <= _SHOWN_CHARS
    read = redact(text[:_SHOWN_CHARS])  # before it is cut: half a secret is not recognised
    visible = clean(read)
    masked = mask(visible)
    # An unchanged text keeps its invisible characters, to be escaped.
    safe = read if masked == visible else masked
    # What a long text was cut in may be a part of an address or a number, which no mask knows.
    safe = safe if whole else safe[:-_LONGEST_CUT]
    return repr(safe) if whole and len(safe) <= limit else f"{safe[:limit]!r}..."
