"""`nightrank train`: fine-tunes a cross-encoder from published runs into a folder that the next night can name.

OUTPUT/_training/     everything that a killed training goes on from; removed when it is done
OUTPUT/figures.jsonl  losses and measures, a line each as they come
OUTPUT/tensorboard/   the same for TensorBoard, if asked for
OUTPUT/...            the model; nightrank.json, which comes last, says that it is whole
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
from pipelines.storage.filesystem import write_bytes
from pipelines.storage.runs import lock
from pipelines.train import dev_sets as dev_sets_module
from pipelines.train.rounds import train_rounds
from rerank_core.config.training import TrainingConfig, to_dict
from rerank_core.errors import MissingEngine, OutputError
from rerank_core.features.render import with_tags
from rerank_core.training.dev_set import DevQuery, DevSet
from rerank_core.training.groups import GroupFile

if TYPE_CHECKING:
    from rerank_core.training.board import Board
    from rerank_core.training.distributed import Processes
    from rerank_core.training.metrics_log import Line

WORK, FIGURES, LAST, BOARD = "_training", "figures.jsonl", "nightrank.json", "tensorboard"
QUICK_STEPS, QUICK_QUERIES = 20, 20
_CHECKED_GROUPS = 8


class Trained(NamedTuple):
    """What a training gave."""

    path: str
    reads_tags: bool
    data: list[dict[str, Any]]  # of each round's stages: name, source, runs, counts; in later rounds mined
    dev_sets: list[str]
    lines: list[Line]  # all figures
    int8_mean: float  # difference of the int8 file's logits
    round: int  # the one whose model this is, from 1


def train(
    config: TrainingConfig,
    *,
    command: str,
    toml: str,
    resume: bool = False,
    quick: bool = False,
    tell: Callable[[Line], None] = lambda line: None,
    on_progress: Callable[[int], None] = lambda more: None,
) -> Trained | None:
    """Read the runs, train the stages, and write the model's folder.

    Of several processes, as torchrun starts them, the first does all that is written, and the others get None.

    Args:
        config: the configuration.
        command: as typed, for the model card.
        toml: the configuration file's text, for the model card.
        resume: go on from where a killed training of this configuration stood; without one, begin.
        quick: end each stage after QUICK_STEPS steps and measure on QUICK_QUERIES queries, to try a configuration out.
        tell: called with each new line of figures.
        on_progress: told how many more groups were read.

    Raises:
        OutputError: the output folder holds something else, or a training of another configuration.
        Locked: the same training is running.
        ManifestError, JudgementError, SourceError: runs or dev sets cannot be used.
        ModelError, TrainingError: the base model cannot, or the training fails.
        MissingEngine: the extra `train` is not installed, or `tensorboard`, which was asked for.
    """
    core = _core(config)
    output = Path(config.output)
    work = output / WORK
    with core.join() as processes, contextlib.ExitStack() as held:
        core.check(config, processes)
        with processes.main_first():
            if processes.main:
                _open(output, {"curriculum": to_dict(config), "quick": quick}, resume=resume)
                held.enter_context(lock(str(work), "training"))
        return _train(
            config,
            core,
            work,
            processes=processes,
            command=command,
            toml=toml,
            quick=quick,
            tell=tell,
            on_progress=on_progress,
        )


def _train(
    config: TrainingConfig,
    core: _Core,
    work: Path,
    *,
    processes: Processes,
    command: str,
    toml: str,
    quick: bool,
    tell: Callable[[Line], None],
    on_progress: Callable[[int], None],
) -> Trained | None:
    output = Path(config.output)
    with processes.main_first():
        devs, dev_sets = _read_devs(config, work, quick=quick)
    held_out = frozenset().union(*(dev_sets_module.query_ids(dev) for dev in devs.values()))
    steps = QUICK_STEPS if quick else 0
    figures = core.Figures(output / FIGURES, board=_board(config) if processes.main else None)
    done = train_rounds(
        config, core.finetune, devs, held_out=held_out, work=work, figures=figures, tell=tell, max_steps=steps,
        on_progress=on_progress, processes=processes,
    )  # fmt: skip
    if done is None:
        return None
    package = work / "package"
    shutil.rmtree(package, ignore_errors=True)
    check = core.write_package(
        done.model,
        package,
        pairs=_pairs(done.data, tagged=config.reads_tags),
        reads_tags=config.reads_tags,
        max_length=config.max_length,
    )
    base = Path(config.model).name if Path(config.model).is_dir() else config.model
    text = core.card(
        config, base=f"`{base}`", command=command, toml=toml, version=pipelines.__version__, data=done.told,
        dev_sets=dev_sets, lines=figures.lines, check=check, max_steps=steps,
    )  # fmt: skip
    (package / "README.md").write_text(text, encoding="utf-8")
    _publish(package, output)
    return Trained(
        str(output), config.reads_tags, done.told, dev_sets, figures.lines, check.int8_mean, done.number
    )


class _Core(NamedTuple):
    """What of the core needs the extra `train`."""

    finetune: Any
    write_package: Any
    card: Any
    Figures: Any
    join: Any
    check: Any


def _core(config: TrainingConfig) -> _Core:
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingEngine(
            "tensorboard is asked for and not there: pip install 'nightrank[cpu,train,tensorboard]', or set "
            "tensorboard = false"
        )
    try:
        if config.lora.r:
            import peft  # noqa: F401

        import accelerate  # noqa: F401  sentence-transformers asks for both when it is too late
        import datasets  # noqa: F401

        from rerank_core.training.distributed import check, join
        from rerank_core.training.finetune import finetune
        from rerank_core.training.metrics_log import Figures
        from rerank_core.training.model_card import card
        from rerank_core.training.package import write_package
    except ImportError as error:
        raise MissingEngine(
            f"training needs {error.name or error}: pip install 'nightrank[cpu,train]'"
        ) from error
    return _Core(finetune, write_package, card, Figures, join, check)


def _board(config: TrainingConfig) -> Board | None:
    """Event files in the model's folder, or in one of its name where a folder for several is given."""
    if not config.tensorboard:
        return None
    from rerank_core.training.board import Board

    output = Path(config.output)
    named = config.tensorboard
    return Board(Path(named) / output.name if isinstance(named, str) else output / BOARD)


def _open(output: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make the output folder and its work folder, or find those of the same training."""
    work, kept = output / WORK, output / WORK / "settings.json"
    if (output / LAST).exists():
        raise OutputError(f"output = {output} holds a model already; name another folder, or remove it")
    if not kept.exists():
        shutil.rmtree(work, ignore_errors=True)  # killed before it had begun
        if output.is_dir() and any(output.iterdir()):
            raise OutputError(f"output = {output} is not empty; name another folder")
        try:
            write_bytes(str(kept), json.dumps(settings).encode())
        except OSError as error:
            raise OutputError(
                f"cannot write to output = {output}: {error.strerror}; name another folder"
            ) from None
    elif not resume:
        raise OutputError(
            f"{work} holds a training that did not end; go on with --resume, or remove {output}"
        )
    held = json.loads(kept.read_text(encoding="utf-8"))
    if held != settings:
        differing = ", ".join(_differing(held, settings))
        raise OutputError(
            f"{work} holds a training of another configuration ({differing}); undo the change, or remove {output}"
        )


def _differing(held: Any, now: Any, *, name: str = "") -> list[str]:
    """Names of the fields in which two configurations differ."""
    if isinstance(held, dict) and isinstance(now, dict):
        keys = sorted(held.keys() | now.keys())
        return [one for key in keys for one in _differing(held.get(key), now.get(key), name=f"{name}.{key}")]
    if isinstance(held, list) and isinstance(now, list) and len(held) == len(now):
        pairs = enumerate(zip(held, now, strict=True))
        return [one for n, (a, b) in pairs for one in _differing(a, b, name=f"{name}.{n}")]
    return [] if held == now else [name.removeprefix(".curriculum").strip(".")]


def _read_devs(config: TrainingConfig, work: Path, *, quick: bool) -> tuple[dict[str, DevSet], list[str]]:
    """The dev sets by their names in the configuration, and what they are; once read they stay as they were."""
    kept = work / "dev.json"
    if not kept.exists():
        limit = min(QUICK_QUERIES, config.dev_queries) if quick else config.dev_queries
        named = dict.fromkeys(filter(None, map(config.dev_of, config.stages)))
        read = {
            name: dev_sets_module.read_dev(
                name, queries=limit, top_k=config.dev_top_k, tagged=config.keeps_tags
            )
            for name in named
        }
        write_bytes(str(kept), json.dumps(read).encode())
    held = json.loads(kept.read_text(encoding="utf-8"))
    sets = {name: DevSet(dev[0], tuple(map(_dev_query, dev[1])), dev[2]) for name, (dev, _) in held.items()}
    return sets, [said for _, said in held.values()]


def _dev_query(held: list[Any]) -> DevQuery:
    query_id, query, doc_ids, passages, tags = held
    return DevQuery(query_id, query, tuple(doc_ids), tuple(passages), tuple(tags))


def _pairs(path: Path, *, tagged: bool) -> list[tuple[str, str]]:
    """Pairs of the first groups, as the model is given them."""
    groups = GroupFile(path)
    count = min(_CHECKED_GROUPS, len(groups.facts().keys))
    rendered = [
        with_tags(tags if tagged else "", group.query, passage)
        for group in map(groups.__getitem__, range(count))
        for passage, tags in zip(group.passages, group.tags, strict=True)
    ]
    return [(pair.query, pair.passage) for pair in rendered]


def _publish(package: Path, output: Path) -> None:
    """Move the finished folder's files to their place, the one that says so last, and clear up."""
    for path in sorted(package.iterdir(), key=lambda path: path.name == LAST):
        target = output / path.name
        if target.is_dir():  # of a training that was killed while it moved
            shutil.rmtree(target)
        os.replace(path, target)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(output / WORK)
