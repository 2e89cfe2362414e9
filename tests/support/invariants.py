"""What must hold of every published run: its counts add up, and each row is scored by its own input."""

from __future__ import annotations

from typing import Any

from rerank_core.features.render import passage_text, render
from rerank_core.scoring.reuse import input_fingerprint
from schemas.manifest import Manifest
from schemas.tags import Tags
from tests.support.fakes import FakeScorer


def model_input(row: dict[str, Any]) -> tuple[str, str]:
    """What the model must have been given for a published row."""
    return tuple(render(row["query"], passage_text(row["title"], row["text"]), Tags.from_row(row)))  # type: ignore[return-value]


def assert_truthful(published: list[dict[str, Any]], scorer: FakeScorer) -> None:
    """No row carries a score or a fingerprint of anything but its own input."""
    for row in published:
        query, passage = model_input(row)
        assert row["logit"] == scorer.score([(query, passage)])[0], row
        fingerprint = input_fingerprint(query, passage, model_fingerprint=scorer.fingerprint)
        assert row["input_fingerprint"] == fingerprint
        assert row["model_fingerprint"] == scorer.fingerprint


def assert_balanced(manifest: Manifest) -> None:
    for counts in (manifest.balance.events, manifest.balance.queries, manifest.balance.pairs):
        assert counts["read"] == sum(count for what, count in counts.items() if what != "read"), counts
