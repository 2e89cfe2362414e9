"""Runs the stages of a config with sentence-transformers' CrossEncoderTrainer.

    _training/start/                 the base model, with a fresh head and the tags in its vocabulary
    _training/N-STAGE/checkpoint-*/  what is trained (safetensors), optimizer, schedule and random state
    _training/N-STAGE/best-STEP/     the same at the end of an epoch that was the best so far by the dev set
    _training/N-STAGE/model/         what the stage made; it appears whole, and then the stage is done

Several processes go through all of this side by side; the main one alone writes (`processes`).

A training that was killed goes on from the newest whole checkpoint, to the same weights on a CPU. transformers writes
optimizer and random state with torch.save; they are read back with weights_only=True, so no pickled code is ever run,
and removed with the folder once the training is done. The order of examples is no generator's state but a list
(`schedule`), and the trainer sees a stage as one long epoch of it.
"""

from __future__ import annotations

import json
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
from rerank_core.training.callback import Plan, Tell, Watch
from rerank_core.training.dev_measure import measure_model
from rerank_core.training.dev_set import MEASURE, DevSet
from rerank_core.training.distributed import ALONE, Batches, Processes, split
from rerank_core.training.groups import GroupFile
from rerank_core.training.lora import Weights
from rerank_core.training.losses import list_labels, make_loss
from rerank_core.training.metrics_log import Figures, Line
from rerank_core.training.schedule import schedule
from rerank_core.training.tag_policy import shown_tags


def finetune(
    config: TrainingConfig,
    data: Sequence[Path],
    devs: Mapping[str, DevSet],
    *,
    folder: Path,
    figures: Figures,
    tell: Tell = lambda line: None,
    max_steps: int = 0,
    processes: Processes = ALONE,
) -> Path:
    """Train all stages, or those that are left, and give the folder of the last one's model.

    Args:
        config: what to do.
        data: each stage's file of groups.
        devs: judged sets by the name that `TrainingConfig.dev_of` gives.
        folder: where the work is kept, `_training`.
        figures: told what comes out, and asked where a killed training stood.
        tell: called with each new line of figures.
        max_steps: end every stage after so many steps; 0 for none.
        processes: those that train together.

    Raises:
        ModelError: the base model cannot be used.
        TrainingError: a loss that is no number.
    """
    with processes.main_first():
        model = write_base_model(config, folder / "start")
    for number, stage in enumerate(config.stages):
        place = folder / f"{number + 1}-{stage.name}"
        if not (place / "model").is_dir():
            plan = _plan(config, number, data, devs, max_steps=max_steps)
            _train_stage(
                config, plan, model, devs, place=place, figures=figures, tell=tell, processes=processes
            )
        model = place / "model"
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
    place: Path,
    figures: Figures,
    tell: Tell,
    processes: Processes,
) -> None:
    with processes.main_first():
        checkpoint = newest_checkpoint(place)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1
    weights = _weights(config, plan, base)
    watch = Watch(
        plan, weights, place=place, figures=figures, tell=tell, patience=config.patience, processes=processes
    )  # fmt: skip
    if processes.main:
        figures.rewind(plan.stage.name, step)
        if plan.dev and plan.number == 0 and not checkpoint:
            watch.measure(0, 0.0)
    trainer = _Trainer(
        model=weights.model,
        args=_arguments(config, plan, place, processes),
        train_dataset=_dataset(plan, config.seed),
        loss=make_loss(weights.model, plan.stage),
        callbacks=[watch],
    )
    trainer.weights, trainer.processes = weights, processes
    trainer.remove_callback(transformers.PrinterCallback)
    if not processes.agree(watch.finished):  # it may have been killed after its last measurement
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    processes.wait()  # none may still read what goes now
    with processes.main_first():
        if not processes.main:
            return
        if watch.best is not None:
            weights.restore(place / f"best-{watch.best['step']}")
        weights.merge()
        steps, first = max(step, trainer.state.global_step), devs.get(config.dev_of(config.stages[0]))
        tell(_close(config, plan, weights, first, steps=steps, best=watch.best, figures=figures))
        save_model(weights.model, place / "model")
        for left in (*place.glob("checkpoint-*"), *place.glob("best-*")):
            shutil.rmtree(left)


def _weights(config: TrainingConfig, plan: Plan, base: Path) -> Weights:
    return Weights(
        load_cross_encoder(base, max_length=config.max_length),
        config.lora,
        tags=special_tokens() if plan.stage.tags.policy == "keep" else (),
        seed=config.seed + plan.number,
    )


def _close(
    config: TrainingConfig,
    plan: Plan,
    weights: Weights,
    first: DevSet | None,
    *,
    steps: int,
    best: Line | None,
    figures: Figures,
) -> Line:
    """The stage's last line: its figures, and what the first stage's set says of the model now."""
    losses = [one["loss"] for one in figures.of("loss", plan.stage.name)]
    told: dict[str, Any] = {
        "examples": plan.examples.rows,
        "unseen": plan.examples.unseen,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "parameters": weights.parameters,
        "parameters_trained": weights.trained,
    }
    if best is not None and plan.dev:
        told |= {"best_step": best["step"], "dev": plan.dev.name, MEASURE: best[MEASURE]}
    if first and plan.number > 0:
        tagged = plan.stage.tags.policy == "keep"
        now = measure_model(weights.model, first, tagged=tagged)[MEASURE]
        after = next((one.get(MEASURE) for one in figures.of("stage", config.stages[0].name)), None)
        told |= {"first_dev": first.name, "first_dev_now": now, "first_dev_after_first_stage": after}
        told["forgotten"] = None if after is None else after - now
    return figures.add("stage", plan.stage.name, steps, **told)


def newest_checkpoint(place: Path) -> Path | None:
    """The checkpoint with the most steps that is whole; one that was killed half way is removed."""
    whole = []
    for path in place.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # written last
            whole.append(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _arguments(
    config: TrainingConfig, plan: Plan, place: Path, processes: Processes
) -> CrossEncoderTrainingArguments:
    stage = plan.stage
    batch, accumulation = split(stage, processes)
    made = CrossEncoderTrainingArguments(
        output_dir=str(place),
        max_steps=plan.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=stage.lr,
        warmup_steps=math.ceil(stage.warmup * plan.steps),
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),  # without it bf16 asks for a GPU
        seed=config.seed + plan.number,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=processes.size > 1,  # `Batches` drops none; without it a warning
        ddp_find_unused_parameters=False,  # torch looks for tensors in what a CrossEncoder gives, and finds none
        disable_tqdm=True,
        report_to="none",
    )
    # Of several GPUs torch's DataParallel would make larger batches than asked for; a process a GPU splits them.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def _dataset(plan: Plan, seed: int) -> Dataset:
    """The examples in their order, as rows of numbers that become texts when they are asked for."""
    columns = {name: getattr(plan.examples, name) for name in ("source", "group", "member", "epoch")}
    return Dataset.from_dict(columns).with_transform(
        partial(_texts, stage=plan.stage, files=plan.files, seed=seed)
    )


def _texts(
    rows: dict[str, list[int]], *, stage: TrainingStage, files: Sequence[GroupFile], seed: int
) -> dict[str, list[Any]]:
    """The examples of some rows, in the columns that `losses` describes."""
    made: list[tuple[Any, Any, Any]] = []
    for source, number, member, epoch in zip(
        rows["source"], rows["group"], rows["member"], rows["epoch"], strict=True
    ):
        group = files[source][number]
        heads = shown_tags(
            group.tags, group.passages, key=group.key, epoch=epoch, policy=stage.tags, seed=seed
        )
        pairs = (with_tags(head, group.query, text) for head, text in zip(heads, group.passages, strict=True))
        sides = [(pair.query, pair.passage) for pair in pairs]
        if member < 0:
            made.append(("", sides, list_labels(stage.loss, logits=group.logits, size=len(sides))))
        else:
            made.append((*sides[member], float(member == 0)))
    queries, documents, labels = zip(*made, strict=True)
    return {"query": list(queries), "document": list(documents), "label": list(labels)}


class _Trainer(CrossEncoderTrainer):
    """Takes the examples as they stand, and writes no card and no pickled arguments beside a checkpoint's weights."""

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
