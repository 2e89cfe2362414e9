"""`nightrank autotune`: which engine runs a model fastest here, measured on pairs of the night that it is for.

The pairs are a few queries of the log with their candidates, rendered as the night renders them, without tags. What was
measured is kept for this machine, and `scoring.backend = "auto"` takes it from there, or measures where there is
nothing: on another machine, for another model, another max_length.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam

from pipelines.beam_options import beam_options
from pipelines.querylog.read_log import ReadQueryLog
from pipelines.sources import Source
from rerank_core import stages
from rerank_core.config.night import Config, Scoring, window
from rerank_core.errors import ConfigError, ModelError, SourceError
from rerank_core.inference.batching import Pair
from rerank_core.inference.machine import gpu_name, machine_name
from rerank_core.inference.model_folder import OPENVINO_INT8, local_folder
from rerank_core.scoring import autotune
from rerank_core.scoring.autotune import Choice, Tuning
from rerank_core.scoring.load import DEFAULT_MODEL, Options, load_scorer
from rerank_core.scoring.protocol import Scorer
from schemas.records import Query

logger = logging.getLogger(__name__)

QUERIES = 8
PAIRS_A_QUERY = 40

Groups = list[list[Pair]]


def resolve(
    config: Config,
    source: Source,
    *,
    run_date: datetime.date,
    local: bool,
    on_measured: Callable[[str], None] = lambda label: None,
) -> Config:
    """The configuration with its backend named, where it says "auto".

    Raises:
        ConfigError: the workers are on other machines than this one, or an option is set that "auto" chooses, or that
            only some engines have.
    """
    if config.scoring.backend != "auto":
        return config
    for name, default in Options._field_defaults.items():
        value = getattr(config.scoring, name)
        if name not in ("max_length", "max_tokens", "threads") and value != default:
            raise ConfigError(
                f"scoring.{name} = {value!r} has no meaning for the backend 'auto', which takes any engine; remove "
                "it, or name the backend"
            )
    if not local:
        raise ConfigError(
            "scoring.backend = 'auto' measures this machine, but the runner's workers are elsewhere: run nightrank "
            "autotune on a machine of their kind, and set scoring.backend and scoring.precision to what it says"
        )
    folder, path = model_folder(config.scoring), tuning_file(config.scoring)
    known = autotune.find(
        path,
        machine=machine_name(),
        model=autotune.model_key(folder),
        max_length=config.scoring.max_length,
    )
    if known is None:
        logger.info("no engine was measured for this model on this machine yet: a minute or two for that")
        groups = sample(config, source, run_date=run_date)
        known = measure(config.scoring, groups, on_measured=on_measured)
        autotune.keep(path, known)
    return dataclasses.replace(config, scoring=chosen(config.scoring, known.best))


def measure(
    scoring: Scoring, groups: Groups, *, on_measured: Callable[[str], None] = lambda label: None
) -> Tuning:
    """Measure every engine that can run the model here.

    Where the model's folder has no static int8 yet, and can be written to, it is made of these pairs first.

    Raises:
        ModelError: the model cannot be used at all.
    """
    folder = model_folder(scoring)
    options = autotune.choices(folder, gpu=bool(gpu_name()))
    if not folder.is_dir():
        raise ModelError(
            f"no model folder at {folder}; set scoring.model to a model's folder, or its name on a hub"
        )
    if not options:
        raise ModelError(
            f"nothing that is installed runs the model in {folder}: an ONNX file needs pip install 'nightrank[cpu]' or "
            "'nightrank[openvino]', *.safetensors need 'nightrank[torch]'"
        )

    def load(choice: Choice) -> Scorer:
        if choice.backend == "openvino" and choice.precision == "int8":
            quantise(folder, groups, max_length=scoring.max_length)
        return load_scorer(folder, max_length=scoring.max_length, threads=scoring.threads, **choice._asdict())

    tuning = autotune.tune(
        folder,
        groups,
        load=load,
        options=options,
        max_length=scoring.max_length,
        on_measured=on_measured,
    )
    _ = tuning.best  # or there is nothing to keep
    return tuning


def quantise(folder: Path, groups: Groups, *, max_length: int) -> None:
    """Write the folder's static int8 where there is none, from the ONNX file that OpenVINO reads in fp32.

    Raises:
        ModelError: the folder cannot be written to.
        MissingEngine: nncf is not installed.
    """
    if (folder / OPENVINO_INT8).is_file():
        return
    from rerank_core.scoring.backends.openvino_int8 import quantise as write

    pairs = [pair for group in groups for pair in group]
    source = next(choice.onnx_file for choice in autotune.choices(folder) if choice.backend == "openvino")
    try:
        write(folder, pairs, onnx_file=source, max_length=max_length)
    except OSError as error:
        raise ModelError(
            f"cannot write {folder / OPENVINO_INT8} ({error}): copy the model to a folder of yours"
        ) from error


def chosen(scoring: Scoring, best: Choice) -> Scoring:
    """The configuration of the best choice."""
    return dataclasses.replace(scoring, **best._asdict())


def model_folder(scoring: Scoring) -> Path:
    return local_folder(scoring.model or DEFAULT_MODEL)


def tuning_file(scoring: Scoring) -> Path:
    return Path(scoring.tuning) if scoring.tuning else autotune.default_path()


def keep(scoring: Scoring, found: Tuning) -> None:
    """Write what was measured where `resolve` looks for it."""
    autotune.keep(tuning_file(scoring), found)


def plain(found: Tuning) -> dict[str, object]:
    """What was measured as plain data, with what was chosen."""
    return {**autotune.plain(found), "chosen": found.best._asdict()}


def sample(config: Config, source: Source, *, run_date: datetime.date) -> Groups:
    """The pairs of a few of the night's queries: those with the lowest ids, which are hashes of their texts.

    Raises:
        SourceError: the log has no query, or none with candidates.
    """
    queries = _queries(config, source, run_date=run_date)
    top_k = min(config.candidates.top_k, PAIRS_A_QUERY)
    groups = []
    for query, found in zip(queries, source.candidates(queries, top_k=top_k), strict=True):
        group, _ = stages.make_group(query, found, config=config.candidates)
        pairs = [
            (one.query, one.passage)
            for candidate in group.candidates
            for one in stages.rendered(group, candidate, tagged=False)
        ]
        if pairs:
            groups.append(pairs[:PAIRS_A_QUERY])
    if not groups:
        raise SourceError(
            "the log's window holds no query with candidates, so there is nothing to measure by; name a file of pairs "
            "with nightrank autotune --pairs, or set scoring.backend"
        )
    return groups


def _queries(config: Config, source: Source, *, run_date: datetime.date) -> list[Query]:
    span = window(run_date, config.log.window_days) if config.log.fields.timestamp else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.json"
        with beam.Pipeline(options=beam_options([])) as pipeline:
            log = pipeline | ReadQueryLog(source, span, config)
            _ = (
                log.queries
                | "Lowest" >> beam.combiners.Top.Smallest(QUERIES, key=_id)
                | "Keep" >> beam.Map(_write, str(path))
            )
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [Query(**{**row, "clicks": (), "click_positions": ()}) for row in held]


def _id(query: Query) -> str:
    return query.query_id


def _write(queries: Sequence[Query], path: str) -> None:
    rows = [query._asdict() for query in queries]
    Path(path).write_text(json.dumps(rows), encoding="utf-8")


def read_pairs(path: Path) -> Groups:
    """The pairs of a JSON Lines file of {"query": ..., "passage": ...}, those of one query together.

    Raises:
        SourceError: the file cannot be read; the message names the line.
    """
    groups: dict[str, list[Pair]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    pair = (row["query"], row["passage"])
                    if not all(isinstance(side, str) for side in pair):
                        raise TypeError("both are texts")
                    groups.setdefault(pair[0], []).append(pair)
                except (ValueError, KeyError, TypeError) as error:
                    raise SourceError(
                        f'{path}, line {number}: not a {{"query": ..., "passage": ...}} ({error})'
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from None
    if not groups:
        raise SourceError(f"{path} holds no pair")
    return list(groups.values())
