"""What a page says of the model: its lineage, what its training forgot, and what was decided about candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.report.text import count, legible, message, number, points
from schemas.manifest import Manifest

DECISIONS = 8  # the newest that are shown


class Decided(NamedTuple):
    """A decision of the registry."""

    what: str
    at: str
    reason: str
    checks: list[list[str]]
    tonight: bool


def lineage(manifest: Manifest) -> list[tuple[str, str]]:
    """Name and value of what is known of the model that scored."""
    model = manifest.model or {}
    config = manifest.config.get("scoring", {})
    shown = [
        ("Model", str(model.get("id") or config.get("model") or "the one that ships with Nightrank")),
        (
            "Engine",
            " ".join(filter(None, (str(config.get("backend", "")), str(config.get("precision", ""))))),
        ),
        ("Fingerprint of model, tokenizer and length", manifest.model_fingerprint),
    ]
    past = model.get("lineage") or {}
    if parent := past.get("parent"):
        shown.append(("Trained from", str(parent.get("model") or parent.get("name") or "unknown")))
    if runs := past.get("runs"):
        names = ", ".join(
            f"{run.get('run_id')} of {run.get('run_date') or 'an unknown date'}" for run in runs[:7]
        )
        shown.append(("Trained on", names + (f" and {len(runs) - 7} more" if len(runs) > 7 else "")))
    if model.get("state"):
        shown.append(
            ("State", f"{model['state']} since {(model.get('history') or [{}])[-1].get('at', 'unknown')}")
        )
    if manifest.calibration:
        shown.append(("Calibration", str(manifest.calibration.get("method", "fitted"))))
    if manifest.fusion:
        weights = ", ".join(f"{name} {number(weight)}" for name, weight in manifest.fusion["weights"].items())
        shown.append(("Final order by", weights))
    return [(name, legible(value, 300)) for name, value in shown if value]


def forgetting(manifest: Manifest) -> list[list[str]]:
    """A row for each stage of the model's training; empty where its figures are not known."""
    figures = ((manifest.model or {}).get("lineage") or {}).get("figures") or ()
    return [
        [
            legible(str(line.get("stage", "")), 60),
            count(line.get("step") or 0),
            number(line.get("loss")),
            _points(next((line[key] for key in ("nDCG@10", "MAP", "MRR@10") if key in line), None)),
            "–" if line.get("forgotten") is None else points(-line["forgotten"]),
        ]
        for line in figures
        if line.get("kind", "stage") == "stage"
    ]


def decided(decisions: list[Mapping[str, Any]], run_date: str) -> list[Decided]:
    """The newest decisions of the registry, the newest first."""
    shown = []
    for decision in list(reversed(decisions))[:DECISIONS]:
        name = legible(str(decision.get("model") or "the model that ships"), 60)
        shown.append(
            Decided(
                f"{str(decision.get('action', 'decided')).replace('_', ' ').capitalize()}: {name}",
                legible(str(decision.get("at", "")), 40),
                message(str(decision.get("reason", ""))),
                [_check(check) for check in decision.get("checks") or ()],
                decision.get("run_date") == run_date,
            )
        )
    return shown


def read_decisions(manifest: Manifest) -> list[Mapping[str, Any]]:
    """Every decision of the night's registry, the oldest first; none without a registry.

    Raises:
        NightrankError: the registry is damaged.
    """
    path = manifest.config.get("registry", {}).get("path")
    if not path:
        return []
    from pipelines.registry.store import Registry

    return [dataclasses.asdict(decision) for decision in Registry(path).decisions()]


def _check(check: Mapping[str, Any]) -> list[str]:
    passed = check.get("passed")
    outcome = "✓ passed" if passed else "– not checked" if passed is None else "✗ failed"
    value, limit = check.get("value"), check.get("limit")
    return [
        message(str(check.get("sentence") or check.get("name", "")), 200),
        outcome,
        number(value) if isinstance(value, int | float) else legible(str(value or "–"), 60),
        number(limit) if isinstance(limit, int | float) else legible(str(limit or "–"), 60),
    ]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
