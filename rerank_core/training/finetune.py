"""Runs the stages of a training with sentence-transformers' CrossEncoderTrainer.

    _training/start/                 the base model, with a new head and the tags in its vocabulary
    _training/N-STAGE/checkpoint-*/  trained weights (safetensors), optimizer, schedule and random state
    _training/N-STAGE/best-STEP/     trained weights after the epoch that is the best so far by the dev set
    _training/N-STAGE/model/         the finished model of the stage; written atomically, it marks the stage as done

With several processes all run this code; only the main one writes (`distributed`).

A killed training resumes from the newest complete checkpoint and ends, on a CPU, with the same weights. transformers
writes optimizer and random state with torch.save; they are read with weights_only=True, so no pickled code ever runs,
and removed with the folder when the training is done. The order of examples is a list drawn beforehand (`schedule`),
not the state of a generator; the trainer sees a stage as one long epoch of it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from torch.utils.data import BatchSampler, SequentialSampler

from rerank_core.config.training import TrainingConfig, TrainingStage
from rerank_core.features.render import special_tokens, with_tags
from rerank_core.training.base_model import load_cross_encoder, save_model, write_base_model
from rerank_core.training.callback import OnLine, Plan, StageCallback
from rerank_core.training.dev_measure import measure_model
from rerank_core.training.dev_set import MEASURE, DevSet
from rerank_core.training.distributed import ALONE, Batches, Processes, split_batch
from rerank_core.training.groups import GroupFile
from rerank_core.training.lora import Weights
from rerank_core.training.losses import list_labels, make_loss
from rerank_core.training.metrics_log import Line, MetricsLog
from rerank_core.training.schedule import schedule
from rerank_core.training.tag_policy import shown_tags
from schemas.parsing import parse_json


def finetune(
    config: TrainingConfig,
    data: Sequence[Path],
    devs: Mapping[str, DevSet],
    *,
    folder: Path,
    figures: MetricsLog,
    on_line: OnLine = lambda line: None,
    max_steps: int = 0,
    processes: Processes = ALONE,
) -> Path:
    """Train all stages that are not done yet, and return the folder of the last one's model.

    Args:
        config: the training.
        data: each stage's file of groups.
        devs: dev sets by the name that `TrainingConfig.dev_of` returns.
        folder: the work folder, `_training`.
        figures: the log that is written, and read when a killed training resumes.
        on_line: called with each new line of figures.
        max_steps: end every stage after this many steps; 0: no limit.
        processes: those that train together.

    Raises:
        ModelError: the base model cannot be used.
        TrainingError: the loss is not finite.
    """
    with processes.main_first():
        model = write_base_model(config, folder / "start")
    for number, stage in enumerate(config.stages):
        work = folder / f"{number + 1}-{stage.name}"
        if not (work / "model").is_dir():
            plan = _plan(config, number, data, devs, max_steps=max_steps)
            _train_stage(
                config, plan, model, devs, folder=work, figures=figures, on_line=on_line, processes=processes
            )
        model = work / "model"
    return model


def _plan(
    config: TrainingConfig, number: int, data: Sequence[Path], devs: Mapping[str, DevSet], *, max_steps: int
) -> Plan:
    stage = config.stages[number]
    files = tuple(GroupFile(path) for path in (data[number], *data[:number]))
    own, *earlier = [file.facts() for file in files]
    examples = schedule(
        own,
        earlier,
        pairwise=stage.loss == "bce",
        epochs=stage.epochs,
        growing=stage.difficulty == "growing",
        replay=stage.replay,
        seed=config.seed + number,
    )
    size = stage.batch * stage.accumulation
    steps = math.ceil(examples.rows / size)
    steps = min(steps, max_steps) if max_steps else steps
    every = examples.rows / stage.epochs / size
    ends = {math.ceil((n + 1) * every): float(n + 1) for n in range(stage.epochs)}
    ends = {step: epoch for step, epoch in ends.items() if step <= steps}
    ends.setdefault(steps, round(steps / every, 4))
    return Plan(number, stage, examples, files, steps, every, ends, devs.get(config.dev_of(stage)))


def _train_stage(
    config: TrainingConfig,
    plan: Plan,
    base: Path,
    devs: Mapping[str, DevSet],
    *,
    folder: Path,
    figures: MetricsLog,
    on_line: OnLine,
    processes: Processes,
) -> None:
    with processes.main_first():
        checkpoint = newest_checkpoint(folder)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1
    weights = _weights(config, plan, base)
    callback = StageCallback(
        plan,
        weights,
        folder=folder,
        figures=figures,
        on_line=on_line,
        patience=config.patience,
        processes=processes,
    )
    if processes.main:
        figures.rewind(plan.stage.name, step)
        if plan.dev and plan.number == 0 and not checkpoint:
            callback.measure(0, 0.0)
    trainer = _Trainer(
        model=weights.model,
        args=_arguments(config, plan, folder, processes),
        train_dataset=_dataset(plan, config.seed),
        loss=make_loss(weights.model, plan.stage),
        callbacks=[callback],
    )
    trainer.weights, trainer.processes = weights, processes
    trainer.remove_callback(transformers.PrinterCallback)
    if not processes.broadcast(callback.finished):  # it may have been killed after its last measurement
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    processes.wait()  # others may still read the checkpoints, which are removed below
    with processes.main_first():
        if not processes.main:
            return
        if callback.best is not None:
            weights.restore(folder / f"best-{callback.best['step']}")
        weights.merge()
        steps, first = max(step, trainer.state.global_step), devs.get(config.dev_of(config.stages[0]))
        on_line(_log_stage(config, plan, weights, first, steps=steps, best=callback.best, figures=figures))
        save_model(weights.model, folder / "model")
        for old in (*folder.glob("checkpoint-*"), *folder.glob("best-*")):
            shutil.rmtree(old)


def _weights(config: TrainingConfig, plan: Plan, base: Path) -> Weights:
    model = load_cross_encoder(base, max_length=config.max_length)
    model.dropout = config.dropout
    return Weights(
        model,
        config.lora,
        tags=special_tokens() if plan.stage.tags.policy == "keep" else (),
        seed=config.seed + plan.number,
    )


def _log_stage(
    config: TrainingConfig,
    plan: Plan,
    weights: Weights,
    first: DevSet | None,
    *,
    steps: int,
    best: Line | None,
    figures: MetricsLog,
) -> Line:
    """Log the stage's summary: its figures, and how well the model still does on the first stage's dev set."""
    losses = [line["loss"] for line in figures.of("loss", plan.stage.name)]
    values: dict[str, Any] = {
        "examples": plan.examples.rows,
        "unseen": plan.examples.unseen,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "parameters": weights.parameters,
        "parameters_trained": weights.trained,
    }
    if best is not None and plan.dev:
        values |= {"best_step": best["step"], "dev": plan.dev.name, MEASURE: best[MEASURE]}
    if first and plan.number > 0:
        tagged = plan.stage.tags.policy == "keep"
        now = measure_model(weights.model, first, tagged=tagged)[MEASURE]
        after = next((line.get(MEASURE) for line in figures.of("stage", config.stages[0].name)), None)
        values |= {"first_dev": first.name, "first_dev_now": now, "first_dev_after_first_stage": after}
        values["forgotten"] = None if after is None else after - now
    return figures.add("stage", plan.stage.name, steps, **values)


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps; incomplete ones are removed."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        try:
            parse_json((path / "trainer_state.json").read_text(encoding="utf-8"))  # written last
            complete.append(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _arguments(
    config: TrainingConfig, plan: Plan, folder: Path, processes: Processes
) -> CrossEncoderTrainingArguments:
    stage = plan.stage
    batch, accumulation = split_batch(stage, processes)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=stage.lr,
        warmup_steps=math.ceil(stage.warmup * plan.steps),
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),  # otherwise bf16 requires a GPU
        seed=config.seed + plan.number,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=processes.size > 1,  # avoids a warning; `Batches` drops none
        ddp_find_unused_parameters=False,  # torch would look for tensors in a CrossEncoder's output and find none
        disable_tqdm=True,
        report_to="none",
    )
    # With several GPUs in one process, torch's DataParallel would use larger batches than configured.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _dataset(plan: Plan, seed: int) -> Dataset:
    """The examples in their order, as rows of numbers that are turned into texts when they are read."""
    columns = {name: getattr(plan.examples, name) for name in ("source", "group", "member", "epoch")}
    return Dataset.from_dict(columns).with_transform(
        partial(_texts, stage=plan.stage, files=plan.files, seed=seed)
    )


def _texts(
    rows: dict[str, list[int]], *, stage: TrainingStage, files: Sequence[GroupFile], seed: int
) -> dict[str, list[Any]]:
    """The examples of some rows, in the form that `losses` describes."""
    examples: list[tuple[Any, Any, Any]] = []
    for source, number, member, epoch in zip(
        rows["source"], rows["group"], rows["member"], rows["epoch"], strict=True
    ):
        group = files[source][number]
        shown = shown_tags(
            group.tags, group.passages, key=group.key, epoch=epoch, policy=stage.tags, seed=seed
        )
        sides = (with_tags(tags, group.query, text) for tags, text in zip(shown, group.passages, strict=True))
        pairs = [(side.query, side.passage) for side in sides]
        if member < 0:
            examples.append(("", pairs, list_labels(stage.loss, logits=group.logits, size=len(pairs))))
        else:
            examples.append((*pairs[member], float(member == 0)))
    queries, documents, labels = zip(*examples, strict=True)
    return {"query": list(queries), "document": list(documents), "label": list(labels)}


class _Trainer(CrossEncoderTrainer):
    """Keeps the order of the examples, and writes no model card and no pickled arguments into checkpoints."""

    weights: Weights
    processes: Processes

    def get_batch_sampler(self, dataset: Any, batch_size: int, **_: Any) -> BatchSampler | Batches:
        if self.processes.size > 1:
            return Batches(
                len(dataset),
                batch=batch_size,
                accumulation=self.args.gradient_accumulation_steps,
                count=self.processes.size,
            )
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.weights.save(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        self.weights.restore(Path(checkpoint_path))
