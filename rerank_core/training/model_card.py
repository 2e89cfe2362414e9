"""The model card of a training: what it learned from, by which command and settings, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_core.config.training import TrainingConfig
from rerank_core.training.dev_set import MEASURE
from rerank_core.training.metrics_log import Line
from rerank_core.training.package import Check
from rerank_core.training.remine import best_round, describe, of_round


def card(
    config: TrainingConfig,
    *,
    base: str,
    command: str,
    toml: str,
    version: str,
    data: Sequence[Mapping[str, Any]],
    dev_sets: Sequence[str],
    lines: Sequence[Line],
    check: Check,
    max_steps: int,
) -> str:
    """README.md of the model's folder.

    Args:
        config: the training.
        base: what it started from, without folders of this machine.
        command: as it was typed.
        toml: the configuration file's text.
        version: of Nightrank.
        data: of each stage: name, runs (dicts) and counts.
        dev_sets: what the dev sets are, a sentence each.
        lines: all figures.
        check: the exported files beside the model.
        max_steps: of a trial; 0 for a whole training.
    """
    tags = (
        "It reads tags: pairs are `[HOP:n] [ROLE:r] [ENT:a,b] [CAUSAL] [REASONING] query`, passage."
        if config.reads_tags
        else "It reads no tags: pairs are query, passage."
    )
    trial = f"\n**A trial**: every stage was ended after {max_steps} steps.\n" if max_steps else ""
    head = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: text-ranking",
        "tags: [cross-encoder, reranker]",
    ]
    head += [f"license: {config.licence}"] if config.licence else []
    parts = [
        "\n".join([*head, "---"]),
        f"# A cross-encoder, fine-tuned by Nightrank {version}\n\nFrom {base}. One logit a pair, float32; "
        f"`CrossEncoder(folder).predict` gives its sigmoid. At most {config.max_length} tokens. {tags}\n{trial}",
        "## Data\n\n" + "\n".join(_data(stage) for stage in data),
        f"Licence: {config.licence or 'not stated; see the base model and whose passages these are'}.",
        "## Figures\n\n" + _figures(config, lines, dev_sets),
        _adapters(config, lines),
        f"`onnx/model.onnx` beside the model, {check.pairs} training pairs: logits differ by at most "
        f"{check.fp32_largest:.1e}; `onnx/model_int8.onnx` (dynamic) by {check.int8_mean:.3f} on average, "
        f"{check.int8_largest:.3f} at most. All figures, each step's loss among them: `figures.jsonl`.",
        f"## Made by\n\n    {command}\n\n```toml\n{toml.strip()}\n```",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _data(stage: Mapping[str, Any]) -> str:
    counts = stage["counts"]
    runs = "; ".join(
        f"{run['run_id']} of {run['run_date']} (published {run['created_at']}, labels by {run['labels']}, "
        + ("" if "mined" in stage else f"negatives by model {run['model_fingerprint'][:12]}, ")
        + f"{run['rows']:,} rows)"
        for run in stage["runs"]
    )
    left_out = ", ".join(
        f"{counts[name]:,} {said}"
        for name, said in (
            ("groups_held_out", "positives of queries that a dev set measures"),
            ("groups_known", "positives that a newer run has too"),
            ("groups_without_negatives", "positives without negatives"),
            ("negatives_left_out", "negatives beyond the number asked for"),
        )
        if counts.get(name)
    )
    return (
        f"- **{stage['name']}**: `{stage['source']}`, {counts.get('groups', 0):,} positives, "
        f"{counts.get('negatives', 0):,} negatives"
        + (f"; left out: {left_out}" if left_out else "")
        + f". Runs: {runs}."
        + (
            f" Mined again by the model of the round before: {describe(stage['mined'])}."
            if "mined" in stage
            else ""
        )
    )


def _figures(config: TrainingConfig, lines: Sequence[Line], dev_sets: Sequence[str]) -> str:
    rows = [
        "| stage | loss | examples | steps | loss, first and last | "
        + MEASURE
        + " | first stage's set now | forgotten |",
        "|---|---|---|---|---|---|---|---|",
    ]
    before = next((one for one in lines if one["kind"] == "dev" and one["step"] == 0), None)
    if before:
        rows.append(f"| before | | | 0 | | {before[MEASURE]:.4f} ({before['dev']}) | | |")
    rounds = range(1, config.rounds + 1)
    losses = {stage.name: stage.loss for n in rounds for stage in of_round(config, n, Path()).stages}
    for one in lines:
        if one["kind"] != "stage":
            continue
        measured = (
            f"{one[MEASURE]:.4f} ({one['dev']}, step {one['best_step']})"
            if MEASURE in one
            else "not measured"
        )
        now, lost = _number(one.get("first_dev_now")), _number(one.get("forgotten"))
        rows.append(
            f"| {one['stage']} | {losses[one['stage']]} | {one['examples']:,} | {one['step']:,} | "
            f"{_number(one['loss_first'])}, {_number(one['loss_last'])} | {measured} | {now} | {lost} |"
        )
    said = [f"- {one}" for one in dev_sets] or [
        "No dev set was configured, so nothing was measured or chosen by it."
    ]
    return "\n\n".join(["\n".join(rows), *_rounds(config, lines), "\n".join(said)])


def _rounds(config: TrainingConfig, lines: Sequence[Line]) -> list[str]:
    rounds = [one for one in lines if one["kind"] == "round"]
    if not rounds:
        return []
    start = "the base model" if config.remining.restart else "the model of the one before"
    measured = ", ".join(f"{one['round']}: {_number(one.get(MEASURE)) or 'not measured'}" for one in rounds)
    return [
        f"{len(rounds)} rounds, each from {start} and with negatives mined by the one before; {MEASURE} {measured}. "
        f"This is the model of round {best_round(lines)}; one that a dev set chose looks better on it than it is."
    ]


def _adapters(config: TrainingConfig, lines: Sequence[Line]) -> str:
    """What was trained where not all was."""
    lora = config.lora
    if not lora.r:
        return ""
    counts = [
        f"{one['parameters_trained']:,} of {one['parameters']:,} parameters ({one['stage']})"
        for one in lines
        if one["kind"] == "stage"
    ]
    return (
        f"Low-rank adapters (r = {lora.r}, alpha = {lora.alpha}, dropout = {lora.dropout:g}) and the head were "
        f"trained, and are merged into the weights: {', '.join(counts)}."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
