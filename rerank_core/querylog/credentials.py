"""How credentials look that people paste into a search box: keys of common services, tokens, passwords.

`rerank_core.redact` hides more, in messages; here an ordinary query must stay, such as one about sk-learn.
"""

from __future__ import annotations

import re

PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,4}"),  # JWT
    re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA|AIDA|AROA)[A-Z0-9]{16}\b"),  # AWS
    re.compile(
        r"\b(?:gh[pousr]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|npm_\w{30,}|pypi-[\w-]{40,}|hf_\w{30,})"
    ),
    re.compile(r"\bxox[a-z]-[\w-]{10,}|\bxapp-[\w-]{10,}|(?<=hooks\.slack\.com/services/)[\w/]{20,}"),
    # OpenAI, Anthropic and others.
    re.compile(r"\bsk-(?:[A-Za-z0-9]{1,12}-){0,3}(?=[A-Za-z_]*\d)[\w-]{16,}"),
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
"""Of a pattern with named groups, the group that matched is the credential."""

MAYBE = re.compile(r"\S{16}|://|passw|pwd|key|secret|token|bearer", re.IGNORECASE)
"""Found in every text that has a credential, and soon not found in most others."""
