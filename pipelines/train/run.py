"""`nightrank train`: fine-tunes a cross-encoder from published runs; the next night can use the model's folder.

OUTPUT/_training/     data and checkpoints, from which a killed training resumes; removed when it is done
OUTPUT/figures.jsonl  losses and measures, one JSON object per line
OUTPUT/tensorboard/   the same for TensorBoard, if enabled
OUTPUT/training.json  configuration, runs and base model, for a registry of models
OUTPUT/...            the model; nightrank.json is written last and marks it as complete
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pipelines
from pipelines.registry.lineage import write_training
from pipelines.storage.filesystem import write_bytes
from pipelines.storage.lock import lock
from pipelines.train import dev_sets as dev_sets_module
from pipelines.train.rounds import Rounds, train_rounds
from rerank_core.config.training import TrainingConfig, to_dict
from rerank_core.errors import MissingEngine, ModelError, OutputError, output_error
from rerank_core.features.render import with_tags
from rerank_core.inference.model_folder import OWN_SETTINGS, find_onnx, read_json
from rerank_core.inference.onnx_file import precision_of
from rerank_core.ranking import calibration, fusion
from rerank_core.training.dev_set import DevQuery, DevSet
from rerank_core.training.groups import GroupFile
from rerank_core.training.metrics_log import Line, MetricsLog
from schemas.parsing import parse_json

if TYPE_CHECKING:
    from rerank_core.training.board import Board

WORK, FIGURES, LAST, BOARD = "_training", "figures.jsonl", "nightrank.json", "tensorboard"
QUICK_STEPS, QUICK_QUERIES = 20, 20
_CHECKED_GROUPS = 8


class Trained(NamedTuple):
    """The result of a training."""

    path: str
    reads_tags: bool
    data: list[dict[str, Any]]  # of each round's stages: name, source, runs, counts; mined in later rounds
    dev_sets: list[str]
    lines: list[Line]  # all figures
    int8_mean: float  # mean absolute difference between the logits of the int8 file and the model
    round: int  # the round whose model is kept, from 1


def train(
    config: TrainingConfig,
    *,
    command: str,
    toml: str,
    resume: bool = False,
    quick: bool = False,
    on_line: Callable[[Line], None] = lambda line: None,
    on_progress: Callable[[int], None] = lambda more: None,
) -> Trained | None:
    """Read the runs, train the stages, and write the model's folder.

    Of several processes, as torchrun starts them, only the first writes; the others return None.

    Args:
        config: the configuration.
        command: as typed, for the model card.
        toml: the configuration file's text, for the model card.
        resume: resume a killed training of this configuration; if there is none, start one.
        quick: stop each stage after QUICK_STEPS steps and measure on QUICK_QUERIES queries, to try a configuration.
        on_line: called with each new line of figures.
        on_progress: called with the number of groups newly read.

    Raises:
        OutputError: the output folder is not empty, or has a training of another configuration.
        Locked: the same training is running.
        ManifestError, JudgementError, SourceError: runs or dev sets cannot be used.
        ModelError, TrainingError: the base model cannot be used, or the training fails.
        MissingEngine: the extra `train` is not installed, or the extra `tensorboard` although it is enabled.
    """
    _check_extras(config)
    from rerank_core.training.distributed import check_batches, join
    from rerank_core.training.finetune import finetune

    output, steps = Path(config.output), QUICK_STEPS if quick else 0
    work = output / WORK
    with join() as processes, contextlib.ExitStack() as locks:
        check_batches(config, processes)
        with processes.main_first():
            if processes.main:
                # "curriculum" is the key of earlier versions, whose trainings can still be resumed.
                _open(output, {"curriculum": to_dict(config), "quick": quick}, resume=resume)
                locks.enter_context(lock(str(work), "training"))
            devs, dev_sets = _read_devs(config, work, quick=quick)
        figures = MetricsLog(output / FIGURES, board=_board(config) if processes.main else None)
        rounds = train_rounds(
            config,
            finetune,
            devs,
            held_out=frozenset().union(*map(dev_sets_module.query_ids, devs.values())),
            work=work,
            figures=figures,
            on_line=on_line,
            max_steps=steps,
            on_progress=on_progress,
            processes=processes,
        )
        if rounds is None:
            return None
        int8_mean = _write_model(
            config,
            rounds,
            command=command,
            toml=toml,
            dev_sets=dev_sets,
            lines=figures.lines,
            max_steps=steps,
        )
    return Trained(
        str(output), config.reads_tags, rounds.records, dev_sets, figures.lines, int8_mean, rounds.number
    )


def _write_model(
    config: TrainingConfig,
    rounds: Rounds,
    *,
    command: str,
    toml: str,
    dev_sets: list[str],
    lines: list[Line],
    max_steps: int,
) -> float:
    """Write the output folder from the best round's model, and return `Trained.int8_mean`."""
    from rerank_core.training.model_card import card
    from rerank_core.training.package import write_package

    output = Path(config.output)
    package = output / WORK / "package"
    shutil.rmtree(package, ignore_errors=True)
    pairs = _pairs(rounds.data, tagged=config.reads_tags)
    check = write_package(
        rounds.model, package, pairs=pairs, reads_tags=config.reads_tags, max_length=config.max_length
    )
    _follow(Path(config.model), package)
    text = card(
        config,
        base=f"`{Path(config.model).name if Path(config.model).is_dir() else config.model}`",
        command=command,
        toml=toml,
        version=pipelines.__version__,
        data=rounds.records,
        dev_sets=dev_sets,
        lines=lines,
        check=check,
        max_steps=max_steps,
    )
    (package / "README.md").write_text(text, encoding="utf-8")
    write_training(package, config, data=rounds.records, lines=lines)
    _publish(package, output)
    return check.int8_mean


def _follow(base: Path, package: Path) -> None:
    """Run a model as the one that it was trained from: in int8 if that one was, with its calibration and fusion.

    Its logits differ little from that one's, and without the weights its nights would lose what fusion brings. Others
    may be fitted afterwards (`nightrank fuse`, `calibrate`), as the training of a night does if it has a dev set.
    """
    from rerank_core.training.package import ONNX_INT8

    for name in (calibration.FILE, fusion.FILE):
        if (base / name).is_file():
            shutil.copyfile(base / name, package / name)
    with contextlib.suppress(ModelError):  # without ONNX files
        if precision_of(find_onnx(base)) == "int8":
            settings = read_json(package / OWN_SETTINGS) | {"onnx_file": ONNX_INT8}
            (package / OWN_SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _check_extras(config: TrainingConfig) -> None:
    """Import what the extras `train` and `tensorboard` bring.

    Raises:
        MissingEngine: naming the missing package and the extra.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingEngine(
            "tensorboard is enabled but not installed: pip install 'nightrank[cpu,train,tensorboard]', or set "
            "tensorboard = false"
        )
    try:
        if config.lora.r:
            import peft  # noqa: F401

        import accelerate  # noqa: F401  here, since sentence-transformers imports both only when it trains
        import datasets  # noqa: F401

        import rerank_core.training.finetune
        import rerank_core.training.package  # noqa: F401
    except ImportError as error:
        raise MissingEngine(
            f"{error.name or error} is not installed, training needs it: pip install 'nightrank[cpu,train]'"
        ) from error


def _board(config: TrainingConfig) -> Board | None:
    """Writer of event files: in the model's folder, or in the configured folder under the model's name."""
    if not config.tensorboard:
        return None
    from rerank_core.training.board import Board

    output = Path(config.output)
    folder = config.tensorboard
    return Board(Path(folder) / output.name if isinstance(folder, str) else output / BOARD)


def _open(output: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make the output folder and its work folder, or check that they belong to the same training."""
    work, path = output / WORK, output / WORK / "settings.json"
    if (output / LAST).exists():
        raise OutputError(f"output = {output} already has a model; name another folder, or remove it")
    if not path.exists():
        shutil.rmtree(work, ignore_errors=True)  # of a training that was killed before this file was written
        if output.is_dir() and any(output.iterdir()):
            raise OutputError(f"output = {output} is not empty; name another folder")
        try:
            write_bytes(str(path), json.dumps(settings).encode())
        except OSError as error:
            raise output_error(
                error, f"cannot write to output = {output}: {error.strerror}; name another folder"
            ) from None
    elif not resume:
        raise OutputError(f"{work} has an unfinished training; resume it with --resume, or remove {output}")
    saved = parse_json(path.read_text(encoding="utf-8"))
    if saved != settings:
        differing = ", ".join(_differing(saved, settings))
        raise OutputError(
            f"{work} has an unfinished training with other values of {differing}; change them back, or remove {output}"
        )


def _differing(saved: Any, now: Any, *, name: str = "") -> list[str]:
    """Names of the fields in which two configurations differ."""
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = sorted(saved.keys() | now.keys())
        return [f for key in keys for f in _differing(saved.get(key), now.get(key), name=f"{name}.{key}")]
    if isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        pairs = enumerate(zip(saved, now, strict=True))
        return [f for n, (a, b) in pairs for f in _differing(a, b, name=f"{name}.{n}")]
    return [] if saved == now else [name.removeprefix(".curriculum").strip(".")]


def _read_devs(config: TrainingConfig, work: Path, *, quick: bool) -> tuple[dict[str, DevSet], list[str]]:
    """The dev sets by their names in the configuration, and their descriptions; a resumed training reads its copy."""
    path = work / "dev.json"
    if not path.exists():
        limit = min(QUICK_QUERIES, config.dev_queries) if quick else config.dev_queries
        names = dict.fromkeys(filter(None, map(config.dev_of, config.stages)))
        read = {
            name: dev_sets_module.read_dev(
                name, queries=limit, top_k=config.dev_top_k, tagged=config.keeps_tags
            )
            for name in names
        }
        write_bytes(str(path), json.dumps(read).encode())
    saved = parse_json(path.read_text(encoding="utf-8"))
    sets = {name: DevSet(dev[0], tuple(map(_dev_query, dev[1])), dev[2]) for name, (dev, _) in saved.items()}
    return sets, [description for _, description in saved.values()]


def _dev_query(fields: list[Any]) -> DevQuery:
    query_id, query, doc_ids, passages, tags = fields
    return DevQuery(query_id, query, tuple(doc_ids), tuple(passages), tuple(tags))


def _pairs(path: Path, *, tagged: bool) -> list[tuple[str, str]]:
    """Pairs of the first groups, in the form of the model's input."""
    groups = GroupFile(path)
    count = min(_CHECKED_GROUPS, len(groups.facts().keys))
    rendered = [
        with_tags(tags if tagged else "", group.query, passage)
        for group in map(groups.__getitem__, range(count))
        for passage, tags in zip(group.passages, group.tags, strict=True)
    ]
    return [(pair.query, pair.passage) for pair in rendered]


def _publish(package: Path, output: Path) -> None:
    """Move the finished files to the output folder, nightrank.json last, and remove the work folder."""
    for path in sorted(package.iterdir(), key=lambda path: path.name == LAST):
        target = output / path.name
        if target.is_dir():  # of a training that was killed while it moved the files
            shutil.rmtree(target)
        os.replace(path, target)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(output / WORK)
