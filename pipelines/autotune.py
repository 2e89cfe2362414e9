"""`nightrank autotune`: which engine runs a model fastest on this machine, measured on pairs of the night.

The pairs are a few queries of the log with their candidates, rendered as the night renders them, without tags. The
result is stored for this machine, model and max_length, and `scoring.backend = "auto"` reads it from there.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam

from pipelines.beam_options import beam_options
from pipelines.querylog.read_log import ReadQueryLog
from pipelines.sources import Source
from rerank_core import stages
from rerank_core.config.backends import BACKENDS
from rerank_core.config.night import Config, Scoring, window
from rerank_core.errors import ConfigError, ModelError, SourceError
from rerank_core.files import read_lines
from rerank_core.inference.batching import Pair
from rerank_core.inference.machine import gpu_name, machine_name
from rerank_core.inference.model_folder import OPENVINO_INT8, local_folder
from rerank_core.scoring import autotune
from rerank_core.scoring.load import DEFAULT_MODEL, Options, load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.scoring.tuning import Choice, Tuning, default_path, model_key, read_tuning, write_tuning
from rerank_core.scoring.tuning import as_json as tuning_json
from rerank_core.values import RecordError, decode_json
from schemas.parsing import parse_json
from schemas.records import Query

QUERIES = 8
PAIRS_A_QUERY = 40

Groups = list[list[Pair]]


def resolve(config: Config, *, local: bool) -> Config:
    """The configuration with its backend named, where it says "auto".

    Raises:
        ConfigError: nothing is stored for this machine, model and max_length; the workers are on other machines than
            this one; or an option is set that "auto" chooses, or that only some engines have.
        ModelError: every engine that was measured failed, or the file of results is damaged.
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
            "scoring.backend = 'auto' is what was measured on this machine, but the runner's workers are elsewhere: "
            "run nightrank autotune on a machine of their kind, and set scoring.backend and scoring.precision to its "
            "result"
        )
    folder, path = model_folder(config.scoring), tuning_file(config.scoring)
    tuning = read_tuning(
        path,
        machine=machine_name(),
        model=model_key(folder),
        max_length=config.scoring.max_length,
    )
    if tuning is None:
        raise ConfigError(
            f"scoring.backend = 'auto', but {path} has no measurement of {folder} on this machine at "
            f"scoring.max_length = {config.scoring.max_length}; measure it once, with this night's TOML: "
            "nightrank autotune --config FILE"
        )
    return dataclasses.replace(config, scoring=dataclasses.replace(config.scoring, **tuning.best._asdict()))


def measure(
    scoring: Scoring, groups: Groups, *, on_measured: Callable[[str], None] = lambda label: None
) -> Tuning:
    """Measure every engine that can run the model here.

    OpenVINO's static int8 model is first written to the model's folder, calibrated on these pairs, if it has none.

    Raises:
        ModelError: no folder, nothing installed that reads its files, or no engine that runs them.
    """
    folder = model_folder(scoring)
    options = autotune.choices(folder, gpu=bool(gpu_name()))
    if not folder.is_dir():
        raise ModelError(
            f"no model folder at {folder}; set scoring.model to a model's folder, or its name on a hub"
        )
    if not options:
        extras = ", ".join(
            f"'nightrank[{b.extra}]' for *.{b.weights}" for b in BACKENDS.values() if b.weights
        )
        raise ModelError(f"no engine is installed that runs the model in {folder}: pip install {extras}")

    def load(choice: Choice) -> Scorer:
        if choice.backend == "openvino" and choice.precision == "int8":
            ensure_int8(folder, groups, max_length=scoring.max_length)
        return load_scorer(folder, max_length=scoring.max_length, threads=scoring.threads, **choice._asdict())

    tuning = autotune.tune(
        folder,
        groups,
        load=load,
        options=options,
        max_length=scoring.max_length,
        on_measured=on_measured,
    )
    _ = tuning.best  # raises if no engine is left
    return tuning


def ensure_int8(folder: Path, groups: Groups, *, max_length: int) -> None:
    """Write the folder's static int8 model if it has none, from the ONNX file that OpenVINO runs in fp32.

    Raises:
        ModelError: the folder cannot be written to.
        MissingEngine: nncf is not installed.
    """
    if (folder / OPENVINO_INT8).is_file():
        return
    from rerank_core.scoring.backends.openvino_int8 import quantise

    pairs = [pair for group in groups for pair in group]
    source = next(choice.onnx_file for choice in autotune.choices(folder) if choice.backend == "openvino")
    try:
        quantise(folder, pairs, onnx_file=source, max_length=max_length)
    except OSError as error:
        raise ModelError(
            f"cannot write {folder / OPENVINO_INT8} ({error}): copy the model to a folder that you can write to"
        ) from error


def model_folder(scoring: Scoring) -> Path:
    return local_folder(scoring.model or DEFAULT_MODEL)


def tuning_file(scoring: Scoring) -> Path:
    return Path(scoring.tuning) if scoring.tuning else default_path()


def store(scoring: Scoring, tuning: Tuning) -> None:
    """Write the result to where `resolve` looks for it."""
    write_tuning(tuning_file(scoring), tuning)


def as_json(tuning: Tuning) -> dict[str, object]:
    """The result as plain data, with the choice."""
    return {**tuning_json(tuning), "chosen": tuning.best._asdict()}


def sample(config: Config, source: Source, *, run_date: datetime.date) -> Groups:
    """The pairs of a few of the night's queries: those with the lowest ids, which are hashes of their texts.

    Raises:
        SourceError: the log has no query, or none with candidates.
    """
    queries = _queries(config, source, run_date=run_date)
    top_k = min(config.candidates.top_k, PAIRS_A_QUERY)
    groups = []
    for query, documents in zip(queries, source.candidates(queries, top_k=top_k), strict=True):
        group, _ = stages.make_group(query, documents, config=config.candidates)
        pairs = [
            (side.query, side.passage)
            for candidate in group.candidates
            for side in stages.rendered(group, candidate, tagged=False)
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
                | "Write" >> beam.Map(_write, str(path))
            )
        rows = parse_json(path.read_text(encoding="utf-8")) if path.exists() else []
    return [Query(**{**row, "clicks": (), "click_positions": ()}) for row in rows]


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
        for number, line in enumerate(read_lines(path), start=1):
            try:
                row = decode_json(line)
                pair = (row["query"], row["passage"])
                if not all(isinstance(side, str) for side in pair):
                    raise TypeError("both are texts")
                groups.setdefault(pair[0], []).append(pair)
            except (ValueError, KeyError, TypeError) as error:
                problem = error.detail if isinstance(error, RecordError) else error
                raise SourceError(
                    f'{path}, line {number}: not a {{"query": ..., "passage": ...}} ({problem})'
                ) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}") from None
    if not groups:
        raise SourceError(f"{path} holds no pair")
    return list(groups.values())
