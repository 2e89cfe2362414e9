"""One TOML configures a night. `examples/nightly.toml` documents every field, its default and its trade-off.

`load_config` turns the file into a tree of frozen dataclasses. An unknown key is an error that names the nearest known
one; a wrong type is an error that names the field, the value and what was expected. Secrets are never configured here:
they are read from environment variables only.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.backends import BACKENDS, check_backend, first_stages
from rerank_core.config.labels import Labels, Mining
from rerank_core.config.operation import (
    Alerts,
    DriftOptions,
    Plan,
    Promotion,
    PublishBack,
    RegistryOptions,
    Retention,
    Workers,
)
from rerank_core.config.source import Candidates, Log, Privacy, Source
from rerank_core.config.toml import (
    STRICT,
    NonNegative,
    Positive,
    Share,
    absolute,
    model_path,
    read_toml,
    refuse_addresses,
    validate,
)
from rerank_core.errors import ConfigError as ConfigError
from rerank_core.inference.model_folder import DEFAULT_MODEL

ScoringBackend = Annotated[str, AfterValidator(lambda name: check_backend(name, ["auto", *BACKENDS]))]
FirstStageBackend = Annotated[str, AfterValidator(lambda name: check_backend(name, first_stages()))]


@dataclass(frozen=True, config=STRICT)
class Tagging:
    """Whether and how candidates are tagged."""

    enabled: bool = True
    model_input: Literal["auto", "tagged", "plain"] = "auto"
    max_hop: Positive = 3
    max_entities: Positive = 4
    recogniser: Literal["spacy", "rules", "transformers", "onnx"] = "spacy"
    recogniser_model: str = ""  # "" is the pipeline that ships with Nightrank, for spacy
    min_idf: Annotated[float, Field(ge=0)] = 2.3
    reasoning_density: Annotated[float, Field(gt=0)] = 0.16


@dataclass(frozen=True, config=STRICT)
class Scoring:
    """The model and how it is run."""

    model: str = ""  # "" is the model that ships with Nightrank
    backend: ScoringBackend = "onnx"
    onnx_file: str = ""  # "" is onnx/model.onnx, or the only ONNX file there
    precision: Literal["", "fp32", "bf16", "fp16", "int8"] = ""  # "" is the backend's own
    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    allow_fallback: bool = False
    max_length: Annotated[int, Field(ge=8)] = 256
    max_tokens: NonNegative = 0
    threads: NonNegative = 0
    instruction: str = ""
    compile: bool = False
    trust_remote_code: bool = False
    calibrate: bool = True
    tuning: str = ""  # "" is the user's cache folder


def fewest_queries(max_loss: float) -> int:
    """The smallest sample that can bound a mean loss, since one unseen query may lose everything."""
    return math.ceil(1 / max_loss - 1e-9) - 1


@dataclass(frozen=True, config=STRICT)
class Cascade:
    """Whether candidates are pruned by a first-stage score before the model, and what loss is accepted."""

    enabled: bool = False
    model: str = ""  # "" is BM25's score alone
    backend: FirstStageBackend = "bi_encoder"
    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    max_length: Annotated[int, Field(ge=8)] = 256
    max_loss: Annotated[float, Field(gt=0, lt=1)] = 0.005
    sample_queries: Positive = 500

    def __post_init__(self) -> None:
        if self.enabled and self.sample_queries < (needed := fewest_queries(self.max_loss)):
            raise ValueError(
                f"a sample of {self.sample_queries} queries cannot show that the loss is at most {self.max_loss:g}: "
                f"raise sample_queries to {needed} at least (twice that prunes well), or max_loss"
            )


@dataclass(frozen=True, config=STRICT)
class FusionOptions:
    """Whether candidates are ordered by the model's logit alone, or by a weighted sum of it and other scores."""

    use: Literal["auto", "on", "off"] = "auto"  # auto: if there are weights
    weights: str = ""  # "" is fusion.json in the model's folder
    bi_encoder: str = ""
    max_length: Annotated[int, Field(ge=8)] = 256


@dataclass(frozen=True, config=STRICT)
class Ranking:
    """How much of the order is published."""

    top_n: NonNegative = 0


@dataclass(frozen=True, config=STRICT)
class EvidenceOptions:
    """Which units are published with evidence sentences."""

    top_n: NonNegative = 3
    keep_share: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True, config=STRICT)
class Reuse:
    """What is reused of earlier nights: scores and facts of the newest published run, and passages' vectors."""

    enabled: bool = True
    vectors_mb: NonNegative = dataclasses.field(
        default=1_000, repr=False
    )  # no row depends on it, and so no run's id


@dataclass(frozen=True, config=STRICT)
class Output:
    """Where and how a run is published."""

    path: str = ""
    store_text: bool = True
    queries_per_shard: Positive = 200
    max_rejected_share: Share = 0.05
    max_no_candidates_share: Share = 1.0


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """Judgements that the night is evaluated on; "" skips that evaluation."""

    queries: str = ""
    qrels: str = ""
    sentence_qrels: str = ""


@dataclass(frozen=True, config=STRICT)
class Config:
    """A whole night."""

    source: Source = Source()
    log: Log = Log()
    privacy: Privacy = Privacy()
    candidates: Candidates = Candidates()
    tags: Tagging = Tagging()
    scoring: Scoring = Scoring()
    cascade: Cascade = Cascade()
    fusion: FusionOptions = FusionOptions()
    ranking: Ranking = Ranking()
    evidence: EvidenceOptions = EvidenceOptions()
    labels: Labels = Labels()
    mining: Mining = Mining()
    reuse: Reuse = Reuse()
    output: Output = Output()
    evaluation: Evaluation = Evaluation()
    plan: Plan = Plan()
    publish_back: PublishBack = PublishBack()
    retention: Retention = Retention()
    registry: RegistryOptions = RegistryOptions()
    promotion: Promotion = Promotion()
    drift: DriftOptions = DriftOptions()
    alerts: Alerts = Alerts()
    workers: Workers = Workers()


PATHS = {
    "source": ("log", "index"),
    "source.elasticsearch": ("ca_file", "client_cert", "client_key", "query_template", "filter"),
    "scoring": ("model", "tuning"),
    "cascade": ("model",),
    "fusion": ("weights", "bi_encoder"),
    "labels": ("queries", "qrels"),
    "output": ("path",),
    "evaluation": ("queries", "qrels", "sentence_qrels"),
    "plan": ("train",),
    "publish_back": ("ca_file",),
    "registry": ("path",),
    "promotion": ("judged_sets",),
    "alerts": ("prometheus", "summary"),
    "workers": ("shared_paths",),
}

AT_STORES = {
    "source.log",
    "source.index",
    "labels.queries",
    "labels.qrels",
    "output.path",
    "evaluation.queries",
    "evaluation.qrels",
    "evaluation.sentence_qrels",
    "registry.path",
    "alerts.prometheus",
    "alerts.summary",
}
"""The paths that may be addresses of object stores; any other is opened by what knows this machine's files alone."""


def load_config(path: str | Path) -> Config:
    """Read a night's configuration.

    Relative paths in it are taken from the file's own folder; paths with a scheme ("gs://...") stay as they are.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or value.
    """
    path = Path(path)
    return parse_config(read_toml(path, example="examples/nightly.toml"), base=path.parent, name=str(path))


def parse_config(raw: dict[str, Any], *, base: Path = Path(), name: str = "config") -> Config:
    """Turn parsed TOML into a Config; `base` is the folder that relative paths start from."""
    config = validate(Config, raw, name=name)
    if config.labels.debias and not config.log.fields.impressions:
        raise ConfigError(
            f"{name}: labels.debias = true needs the documents shown, but log.fields.impressions = ''; set it to their "
            "column, or set labels.debias = false"
        )
    if config.privacy.min_users > 1 and not config.log.fields.user:
        raise ConfigError(
            f"{name}: privacy.min_users = {config.privacy.min_users} needs users, but log.fields.user = '': every "
            "query would be dropped; set it to the column of users, or set min_users = 1"
        )
    paths = {f"{section}.{key}" for section, keys in PATHS.items() for key in keys} | {
        "tags.recogniser_model"
    }
    local = {key: functools.reduce(getattr, key.split("."), config) for key in sorted(paths - AT_STORES)}
    refuse_addresses(local, name=name)
    return _resolve(config, base)


def require(config: Config, *keys: str) -> None:
    """Refuse a configuration in which one of `keys` ("source.log", "output.path") is not set.

    Raises:
        ConfigError: the message names the key.
    """
    for key in keys:
        if not functools.reduce(getattr, key.split("."), config):
            raise ConfigError(f"'{key}' is not set; see examples/nightly.toml")


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved configuration as JSON data, for the manifest. It holds no secrets by construction."""
    as_json: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists
    return as_json


def change_paths(config: Config, change: Callable[[Any], Any]) -> Config:
    """`config` with `change` applied to every field of PATHS."""
    for section, keys in PATHS.items():
        config = _change(config, section.split("."), keys, change)
    return config


def _change(node: Any, names: list[str], keys: tuple[str, ...], change: Callable[[Any], Any]) -> Any:
    if not names:
        values = {key: getattr(node, key) for key in keys}
        changed = {
            key: tuple(map(change, value)) if isinstance(value, tuple) else change(value)
            for key, value in values.items()
        }
        return dataclasses.replace(node, **changed)
    return dataclasses.replace(node, **{names[0]: _change(getattr(node, names[0]), names[1:], keys, change)})


def _resolve(config: Config, base: Path) -> Config:
    given = config
    config = change_paths(config, lambda value: absolute(value, base))
    # These are a folder, a model on a hub ("owner/name") or an installed pipeline: a name stays as it is.
    for section, key in (("scoring", "model"), ("cascade", "model"), ("fusion", "bi_encoder")):
        name = model_path(getattr(getattr(given, section), key), base)
        if section == "scoring" and name == str(DEFAULT_MODEL):
            name = ""
        named = dataclasses.replace(getattr(config, section), **{key: name})
        config = dataclasses.replace(config, **{section: named})
    recogniser = given.tags.recogniser_model
    if recogniser and (base / recogniser).is_dir():
        tags = dataclasses.replace(config.tags, recogniser_model=absolute(recogniser, base))
        config = dataclasses.replace(config, tags=tags)
    return config


def window(run_date: datetime.date, days: int) -> tuple[datetime.datetime, datetime.datetime]:
    """[start, end) in UTC: `days` days, of which `run_date` is the last; cut at the ends of the calendar."""
    first, last = run_date.toordinal() - days + 1, run_date.toordinal()
    start = datetime.date.fromordinal(max(1, first))
    end = datetime.datetime.max
    if run_date < datetime.date.max:
        end = datetime.datetime.combine(datetime.date.fromordinal(last + 1), datetime.time())
    return datetime.datetime.combine(start, datetime.time(), datetime.UTC), end.replace(tzinfo=datetime.UTC)
