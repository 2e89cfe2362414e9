"""Secrets in what is shown or stored: messages, logs, tracebacks, dead letters and manifests pass through `redact`.

Two kinds are removed: secrets that this process knows, in every encoding in which a server or a library may echo them,
and values that look like credentials, whoever's they are.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HIDDEN = "***"
SHORTEST = 4  # of a known secret: a shorter one would be found in ordinary words

SERVICE_KEYS = (
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
)
"""Keys of common services by their forms, which nothing else has: they are hidden in queries too."""

_SECRET_NAME = re.compile(
    r"(?i)(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|BEARER|WEBHOOK_?URL)(_FILE)?$"
)
_SHORTEST_CORE = 8  # of the base64 of a secret inside of that of a longer text
_MOST_FILE_BYTES = 65_536

# How some JSON writers escape what HTML gives a meaning, and "=" in base64.
_SAFE_JSON = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&'="})

_QUOTE = r"\\{0,7}[\"']"
_NAME = (
    r"(?:proxy-)?authorization|(?:x-)?api[-_ ]?key|access[-_]?key(?:[-_]?id)?|secret[-_]?(?:access[-_]?)?key"
    r"|client[-_]?secret|passw(?:or)?d|passwd|pwd|(?:access|refresh|session|security|auth|bearer|id)[-_]?token"
    r"|private[-_]?key|(?:set-)?cookie"
)
_QUOTED_NAME = rf"{_NAME}|[\w-]{{0,32}}(?:secret|token|signature|credentials?)"
_SCHEME = (
    r"(?:(?:basic|bearer|apikey|digest|negotiate|token)\s+)?+"  # possessive: it is never the value itself
)
_WORDS = "auth key pass pwd token secret cookie signature credential".split()
# How values that look like credentials are written: (words, one of which is in every match in lower case, pattern,
# replacement). Repetitions have limits, so that no text takes quadratic time.
_LOOKS: list[tuple[list[str], re.Pattern[str], str]] = [
    (words, re.compile(pattern), replacement)
    for words, pattern, replacement in [
        # "password": "a b", with any number of backslashes before the quotes, also in a list
        (
            _WORDS,
            rf"(?is)({_QUOTE}(?:{_QUOTED_NAME}){_QUOTE}\s{{0,9}}:\s{{0,9}}\[?\s{{0,9}})({_QUOTE}).{{0,8192}}?(?<!\\)\2",
            rf"\1\2{HIDDEN}\2",
        ),
        # password=abc, Authorization: ApiKey abc
        (
            _WORDS,
            rf"(?i)((?:{_NAME})(?:{_QUOTE})?\s{{0,9}}[:=]>?\s{{0,9}}\[?\s{{0,9}}(?:{_QUOTE})?){_SCHEME}"
            rf"(?!{re.escape(HIDDEN)})[^\s\"'\\,;&\[\](){{}}]+",
            rf"\1{HIDDEN}",
        ),
        (
            [*_WORDS, "sig"],
            r"(?i)([?&](?:[\w-]{0,32}(?:key|token|secret|signature|credential)|sig|auth)=)[^&\s\"']+",
            rf"\1{HIDDEN}",
        ),
        # https://user:password@host; but https://host:9200/a@b
        (
            ["://"],
            r"(://)(?:[^\s/@:\"']{0,256}:(?!\d+(?:/|\s|$))[^\s\"']{1,1024}|[^\s/@:\"']{1,256})@",
            rf"\1{HIDDEN}@",
        ),
        (
            ["bearer", "basic", "apikey"],
            r"\b((?i:bearer|basic|apikey)\s{1,9})(?=[\w.~+/-]{0,8192}?(?:[\d=+/]|[a-z][A-Z]))[\w.~+/=-]{6,}",
            rf"\1{HIDDEN}",
        ),
        (["bearer", "apikey"], r"\b((?:Bearer|ApiKey)\s{1,9})[\w.~+/=-]{12,}", rf"\1{HIDDEN}"),
        # Shorter ones than SERVICE_KEYS has, such as a message may have cut; PEM
        ("akia asia aroa aida".split(), r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b", HIDDEN),
        (
            "gh github_pat_ hf_ xox aiza sk- glpat-".split(),
            r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abeoprs]-|AIza|sk-)[\w-]{16,}",
            HIDDEN,
        ),
        (
            ["private key-----"],
            r"(?s)-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
            HIDDEN,
        ),
    ]
]

_known: set[str] | None = None  # None: the environment was not looked at yet
_forms: tuple[str, ...] = ()  # of all known secrets, the longest first


def know(*secrets: str) -> None:
    """Remember secrets of this process; they are removed from then on. Shorter ones than SHORTEST are ignored."""
    global _known, _forms
    known = set(_of_environment(os.environ)) if _known is None else _known
    known = known | {secret for secret in secrets if len(secret) >= SHORTEST}
    if known != _known:
        forms = {form for secret in known for form in encodings(secret)}
        _known, _forms = known, tuple(sorted(forms, key=lambda form: (-len(form), form)))


def redact(text: str, *, guess: bool = True) -> str:
    """`text` without known secrets: each is replaced by HIDDEN. Redact before cutting: half a secret is not recognised.

    Args:
        text: any text.
        guess: whether values that look like credentials are removed too.
    """
    if _known is None:
        know()
    text = _without_known(text)
    if not guess:
        return text
    lower = text.lower()
    for words, pattern, replacement in _LOOKS:
        if any(word in lower for word in words):
            text = pattern.sub(replacement, text)
    for pattern in SERVICE_KEYS:
        text = pattern.sub(HIDDEN, text)
    return _without_known(text)


def _without_known(text: str) -> str:
    before = ""
    while text != before:  # what is left on both sides of a secret may make up another
        before = text
        for form in _forms:
            if form in text:
                text = text.replace(form, HIDDEN)  # shorter than any form, so this ends
    return text


def redact_tree(tree: Any) -> Any:
    """A tree of JSON values, keys left alone, each string redacted."""
    if isinstance(tree, str):
        return redact(tree)
    if isinstance(tree, Mapping):
        return {key: redact_tree(value) for key, value in tree.items()}
    return [redact_tree(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def encodings(secret: str) -> set[str]:
    """The forms in which a secret may be echoed: as it is, escaped, quoted for a URL or HTML, in base64, in hex.

    Base64 also as the part of a longer text's that this secret alone decides, at each of the three alignments.
    """
    raw = secret.encode("utf-8", "surrogatepass")
    plain = {secret, repr(secret)[1:-1], raw.decode("latin-1"), raw.hex(), raw.hex().upper(), repr(raw)[2:-1]}
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        plain |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    plain |= {html.escape(secret), html.escape(secret, quote=False)}
    quoted = {urllib.parse.quote(raw, safe=""), urllib.parse.quote(raw), urllib.parse.quote_plus(raw)}
    quoted |= {urllib.parse.quote(form, safe="") for form in quoted}
    quoted |= {re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in quoted}
    standard = set(_base64(raw))
    encoded = standard | {form.translate(str.maketrans("+/", "-_")) for form in standard}
    encoded |= {urllib.parse.quote(form, safe="") for form in encoded}
    forms = plain | quoted | encoded
    forms |= {form.replace("/", "\\/") for form in forms} | {form.translate(_SAFE_JSON) for form in forms}
    return {form for form in forms if len(form) >= SHORTEST}


def _base64(raw: bytes) -> Iterator[str]:
    whole = base64.b64encode(raw).decode()
    yield from (whole, whole.rstrip("="))
    for before in range(3):
        bits = 8 * (before + len(raw))
        core = base64.b64encode(bytes(before) + raw).decode()[-(-8 * before // 6) : bits // 6]
        if len(core) >= _SHORTEST_CORE:
            yield core


def _of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    """Values of variables that are named as secrets are, and the content of files that they name."""
    for name, value in environment.items():
        match = _SECRET_NAME.search(name)
        if match and match[2]:
            value = _content(value)
        if match and len(value) >= 2 * SHORTEST:
            yield value
            user = environment.get(name.replace("PASSWORD", "USERNAME").removesuffix("_FILE"), "")
            if user and user != value:
                yield f"{user}:{value}"


def _content(path: str) -> str:
    try:
        if not Path(path).is_file():  # a pipe could be read once, or never end
            return ""
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_MOST_FILE_BYTES).strip()
    except (OSError, ValueError):
        return ""
