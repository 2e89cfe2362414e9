"""How credentials look that people paste into a search box: keys of common services, tokens, passwords.

`rerank_core.redact` hides more, in messages; here an ordinary query must stay, such as one about sk-learn.
"""

from __future__ import annotations

import re

from rerank_core.redact import SERVICE_KEYS

PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.DOTALL),
    *SERVICE_KEYS,
    re.compile(r"(?<=://)[^\s/:@()]*:[^\s/@()]+(?=@)"),  # a password in an address
    re.compile(  # a value after the name of what gives access
        r"(?:passw(?:or)?d|pwd|api[_-]?key|access[_-]?key|secret|token)\w*[\"']?\s*[=:]\s*[\"']?(?:bearer )?"
        r"(?P<part>(?=\S*\d)(?=\S*[a-z])[^\s\"'()]{8,})|\bbearer (?P<bearer>(?=\S*\d)[^\s\"'()]{12,})",
        re.IGNORECASE,
    ),
)
"""Of a pattern with named groups, the group that matched is the credential."""

MAYBE = re.compile(r"\S{16}|://|passw|pwd|key|secret|token|bearer", re.IGNORECASE)
"""Found in every text that has a credential, and soon not found in most others."""
