"""The model card of a training: its data, command, configuration and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_core.config.training import TrainingConfig
from rerank_core.training.dev_set import MEASURE
from rerank_core.training.metrics_log import Line
from rerank_core.training.package import Check
from rerank_core.training.remine import best_round, describe, of_round

_CROSS_ENCODER = (
    "A cross-encoder",
    "`CrossEncoder(folder).predict` returns its sigmoid.",
    "dynamic int8",
)
_BI_ENCODER = (
    "A bi-encoder",
    "it is the cosine of `SentenceTransformer(folder).encode_query` and `encode_document`, times `scale` plus `offset` "
    "of `logit` in `nightrank.json`.",
    "int8, one scale per token",
)
"""The kind of model, how to compute its logit, and how its int8 file is quantised."""


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
        base: name of the base model, without folders of this machine.
        command: as it was typed.
        toml: the configuration file's text.
        version: of Nightrank.
        data: of each stage: name, source, runs and counts, as `pipelines.train.data` returns them.
        dev_sets: a sentence about each dev set.
        lines: all figures.
        check: the comparison of the exported files with the model.
        max_steps: limit of each stage in a trial (--quick); 0 for a full training.
    """
    tags = (
        "It reads tags: pairs are `[HOP:n] [ROLE:r] [ENT:a,b] [CAUSAL] [REASONING] query`, passage."
        if config.reads_tags
        else "It reads no tags: pairs are query, passage."
    )
    kind, use, int8 = _BI_ENCODER if check.bi_encoder else _CROSS_ENCODER
    trial = f"\n**A trial**: every stage was stopped after at most {max_steps} steps.\n" if max_steps else ""
    head = [
        "---",
        "library_name: sentence-transformers",
        f"pipeline_tag: {'sentence-similarity' if check.bi_encoder else 'text-ranking'}",
        f"tags: [{'bi-encoder' if check.bi_encoder else 'cross-encoder'}, reranker]",
    ]
    head += [f"license: {config.licence}"] if config.licence else []
    parts = [
        "\n".join([*head, "---"]),
        f"# {kind}, fine-tuned by Nightrank {version}\n\nBase model: {base}. One float32 logit per pair; {use} At most "
        f"{config.max_length} tokens. {tags}\n{trial}",
        "## Data\n\n" + "\n".join(_data(stage) for stage in data),
        f"Licence: {config.licence or 'not stated; see those of the base model and of the passages'}.",
        "## Figures\n\n" + _figures(config, lines, dev_sets),
        _adapters(config, lines),
        f"On {check.pairs} training pairs the logits of `onnx/model.onnx` differ from the model's by at most "
        f"{check.fp32_largest:.1e}; those of `onnx/model_int8.onnx` ({int8}) by {check.int8_mean:.3f} on "
        f"average, {check.int8_largest:.3f} at most. All figures, with the loss of each step: `figures.jsonl`.",
        f"## Command\n\n    {command}\n\n```toml\n{toml.strip()}\n```",
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
        f"{counts[name]:,} {meaning}"
        for name, meaning in (
            ("groups_held_out", "positives of queries that are in a dev set"),
            ("groups_known", "positives that a newer run also has"),
            ("groups_without_negatives", "positives without negatives"),
            ("negatives_copies", "negatives that are copies of a positive"),
            ("negatives_left_out", "negatives beyond the configured number"),
        )
        if counts.get(name)
    )
    return (
        f"- **{stage['name']}**: `{stage['source']}`, {counts.get('groups', 0):,} positives, "
        f"{counts.get('negatives', 0):,} negatives"
        + (f"; left out: {left_out}" if left_out else "")
        + f". Runs: {runs}."
        + (
            f" Mined again by the model of the previous round: {describe(stage['mined'])}."
            if "mined" in stage
            else ""
        )
    )


def _figures(config: TrainingConfig, lines: Sequence[Line], dev_sets: Sequence[str]) -> str:
    rows = [
        "| stage | loss | examples | steps | loss, first and last | "
        + MEASURE
        + " | first stage's dev set now | forgotten |",
        "|---|---|---|---|---|---|---|---|",
    ]
    before = next((line for line in lines if line["kind"] == "dev" and line["step"] == 0), None)
    if before:
        rows.append(f"| before | | | 0 | | {before[MEASURE]:.4f} ({before['dev']}) | | |")
    rounds = range(1, config.rounds + 1)
    losses = {stage.name: stage.loss for n in rounds for stage in of_round(config, n, Path()).stages}
    for line in lines:
        if line["kind"] != "stage":
            continue
        measured = (
            f"{line[MEASURE]:.4f} ({line['dev']}, step {line['best_step']})"
            if MEASURE in line
            else "not measured"
        )
        now, lost = _number(line.get("first_dev_now")), _number(line.get("forgotten"))
        rows.append(
            f"| {line['stage']} | {losses[line['stage']]} | {line['examples']:,} | {line['step']:,} | "
            f"{_number(line['loss_first'])}, {_number(line['loss_last'])} | {measured} | {now} | {lost} |"
        )
    sets = [f"- {dev_set}" for dev_set in dev_sets] or [
        "No dev set was configured: nothing was measured, and the last weights were kept."
    ]
    return "\n\n".join(["\n".join(rows), *_rounds(config, lines), "\n".join(sets)])


def _rounds(config: TrainingConfig, lines: Sequence[Line]) -> list[str]:
    rounds = [line for line in lines if line["kind"] == "round"]
    if not rounds:
        return []
    start = "the base model" if config.remining.restart else "the previous round's model"
    measured = ", ".join(
        f"{line['round']}: {_number(line.get(MEASURE)) or 'not measured'}" for line in rounds
    )
    return [
        f"{len(rounds)} rounds, each from {start}, with negatives mined by the previous round's model; {MEASURE} by "
        f"round: {measured}. This is the model of round {best_round(lines)}. If it was chosen on a dev set, its "
        "figures there are optimistic."
    ]


def _adapters(config: TrainingConfig, lines: Sequence[Line]) -> str:
    """The number of trained parameters, where adapters were trained."""
    lora = config.lora
    if not lora.r:
        return ""
    counts = [
        f"{line['parameters_trained']:,} of {line['parameters']:,} parameters ({line['stage']})"
        for line in lines
        if line["kind"] == "stage"
    ]
    return (
        f"Low-rank adapters (r = {lora.r}, alpha = {lora.alpha}, dropout = {lora.dropout:g}) and the head were "
        f"trained, and are merged into the weights: {', '.join(counts)}."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
