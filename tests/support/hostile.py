"""Texts that would act on a page if they were not taken for text."""

from __future__ import annotations

from pathlib import Path

from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import parse_config
from schemas.manifest import Manifest
from tests.support.fakes import fake
from tests.support.tiny import DAY, event, write_lines

MARKUP = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{display:none}</style>",
    "</title></head><body><h1>Mine</h1>",
    "<!-- <svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    '<a href="javascript:alert(1)">here</a>',
    "&lt;b&gt; &amp; &#x3C;",
    '<base href="https://example.org/"><meta http-equiv=refresh content=0>',
    "]]></desc></svg>",
]
LAYOUT = [
    "\u202eright to left\u202c",
    "\u2067\u2069\u2069 unbalanced isolates \u2066",
    "שלום עולם مرحبا بالعالم",
    "Z" + "\u0335\u0301\u0489" * 500 + "algo",
    "W" * 10_000,
    "word " * 2_000,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 600,
    "\x00\x07\x1b[31m\x7f",
    "a\u2028b\u2029c\u0085d",
    "﷽" * 300,
]
NOTHING = ["null", "None", "NaN", "undefined", "-0", "[]"]
TEXTS = MARKUP + LAYOUT + NOTHING


def hostile_night(folder: Path) -> tuple[Path, Manifest]:
    """A published night in which titles, texts, ids, queries and names are hostile, and half of the log is refused."""
    corpus = [
        {"_id": f"{n}{text[:60]}", "title": text, "text": f"dune {text} Frank Herbert. Second {text}."}
        for n, text in enumerate(TEXTS)
    ]
    build_index(write_lines(folder / "corpus.jsonl", corpus), folder / "index")
    clicked = [document["_id"] for document in corpus]
    events = [event(f"dune {text[:900]}", clicked[n]) for n, text in enumerate(TEXTS)]
    refused = [event(f"dune {text}" * 100, user=text) for text in TEXTS] + MARKUP
    config = parse_config(
        {
            "source": {
                "log": str(write_lines(folder / "log.jsonl", events + refused)),
                "index": str(folder / "index"),
            },
            "output": {"path": str(folder / "output"), "max_rejected_share": 1.0},
            "tags": {"recogniser": "rules"},
        }
    )
    return folder / "output", run(config, run_date=DAY, load=fake())
