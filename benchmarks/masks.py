"""How well masking tells personal data and credentials from what only looks like them.

benchmarks/data/masks.jsonl has a text a line, as it is typed and as it is right masked; half of the texts stay as they
are. The list was written before the masks. Two thirds were looked at while they were made (`tuning`); of the third part
(`held_out`) only these figures were. A text counts as right if exactly what should go is replaced, by whatever
placeholder; `mask_kind` says how often by the right one.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from benchmarks.common import SAMPLE, parser, report
from rerank_core.querylog.masks import mask

LIST = Path(__file__).parent / "data" / "masks.jsonl"
_PLACEHOLDER = re.compile(r"\((?:email|iban|card|id|phone|number|secret|ip)\)")


def measure(quick: bool) -> dict[str, float]:
    """Precision and recall over all texts and over those held out; without `quick` also the speed."""
    texts = [json.loads(line) for line in LIST.read_text(encoding="utf-8").splitlines()]
    figures = _figures(texts, "") | _figures([t for t in texts if t["part"] == "held_out"], "_held_out")
    return figures if quick else figures | {"mask_queries_per_second": _speed()}


def _figures(texts: list[dict[str, Any]], suffix: str) -> dict[str, float]:
    personal = [text for text in texts if text["masked"] != text["text"]]
    found = [text for text in personal if _plain(mask(text["text"])) == _plain(text["masked"])]
    kinds = [text for text in found if mask(text["text"]) == text["masked"]]
    false = [text for text in texts if text["masked"] == text["text"] != mask(text["text"])]
    return {
        f"mask_texts{suffix}": len(texts),
        f"mask_precision{suffix}": len(found) / (len(found) + len(false)),
        f"mask_recall{suffix}": len(found) / len(personal),
        f"mask_kind{suffix}": len(kinds) / len(found),
    }


def _plain(masked: str) -> str:
    return _PLACEHOLDER.sub("()", masked)


def _speed() -> float:
    """Queries of the sample log masked per second of processor time, by one thread."""
    lines = (SAMPLE / "query_log.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["query"] for line in lines] * 20
    start = time.process_time()
    for query in queries:
        mask(query)
    return len(queries) / (time.process_time() - start)


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    report(measure(args.quick), args.json)


if __name__ == "__main__":
    main()
