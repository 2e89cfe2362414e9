"""What workers on other machines cannot have, and a job that their service would not take, is refused before the start.

Nothing here asks the network: a dry run says the same without credentials.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from pipelines.beam_options import is_local_run
from pipelines.registry.resolve import PREFIX
from pipelines.storage.filesystem import is_local
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError

ANYWHERE = "anywhere"  # read through Beam's file systems, so an address of an object store will do
FILE = "file"  # opened by a library that reads local files alone
DRIVER = "driver"  # needed where the night is started, and nowhere else

NEEDS = {
    "source.log": ANYWHERE,
    "source.index": ANYWHERE,
    "source.elasticsearch.ca_file": FILE,
    "source.elasticsearch.client_cert": FILE,
    "source.elasticsearch.client_key": FILE,
    "source.elasticsearch.query_template": DRIVER,  # its text travels in the job
    "source.elasticsearch.filter": DRIVER,  # likewise
    "tags.recogniser_model": FILE,
    "scoring.model": FILE,
    "scoring.tuning": DRIVER,
    "cascade.model": FILE,
    "fusion.weights": DRIVER,  # likewise
    "fusion.bi_encoder": FILE,
    "labels.queries": ANYWHERE,
    "labels.qrels": ANYWHERE,
    "output.path": ANYWHERE,
    "evaluation.queries": DRIVER,
    "evaluation.qrels": DRIVER,
    "evaluation.sentence_qrels": DRIVER,
    "plan.train": DRIVER,
    "publish_back.ca_file": DRIVER,
    "registry.path": ANYWHERE,  # by the workers, if the model is from there
    "promotion.judged_sets": DRIVER,
    "alerts.prometheus": DRIVER,
    "alerts.summary": DRIVER,
    "workers.shared_paths": DRIVER,
}
"""Where each path of a configuration is needed."""

_HERE = re.compile(
    r"^((https?|spark)://)?(localhost|127\.[\d.]+|\[::1\]|\[local\]|\[auto\]|local(\[.*\])?)(:\d+)?/?$"
)


def check_remote(config: Config, options: PipelineOptions) -> None:
    """Refuse a night that a remote runner, or its workers, could not run.

    Raises:
        ConfigError: the message names what is missing, and what to do.
    """
    if workers_are_here(options):
        return
    check_paths(config, options)
    _check_dataflow(options)
    _check_packages(options)


def check_paths(config: Config, options: PipelineOptions) -> None:
    """Refuse local paths that the workers of a remote runner need and do not have.

    Raises:
        ConfigError: the message names every such path, and what to do.
    """
    if workers_are_here(options):
        return
    missing = [name for name in NEEDS if not _reaches_workers(config, name)]
    if not missing:
        return
    named = ", ".join(f"{name} = {_value(config, name)!r}" for name in missing)
    stores = [name for name in missing if NEEDS[name] == ANYWHERE]
    address = (
        f"set {' and '.join(stores)} to addresses of an object store (gs://, s3://), or " if stores else ""
    )
    raise ConfigError(
        f"with --runner={options.view_as(StandardOptions).runner} the workers are on other machines, which do not have "
        f"{named}; {address}put what is local into a volume or an image that every worker has under the same path, "
        "and name that folder in workers.shared_paths"
    )


def _reaches_workers(config: Config, name: str) -> bool:
    """Whether the workers have a path of the configuration, or do not need it."""
    if NEEDS[name] == DRIVER or not _is_read(config, name):
        return True
    path = Path(value := _value(config, name))
    # A relative one is the name of a model on a hub, since paths were made absolute when they were read.
    if not path.is_absolute() or not is_local(value):
        return True
    return any(path.is_relative_to(folder) for folder in config.workers.shared_paths)


def _is_read(config: Config, name: str) -> bool:
    """Whether the workers of this night read a path, or what it belongs to is off."""
    tags, labels = config.tags, config.labels.source if config.mining.enabled else "clicks"
    if name.startswith("source."):
        return config.source.kind == (name.split(".")[1] if name.count(".") > 1 else "local")
    used = {
        "registry.path": config.scoring.model.startswith(PREFIX),
        "tags.recogniser_model": tags.enabled and tags.recogniser != "rules",
        "cascade.model": config.cascade.enabled,
        "fusion.bi_encoder": config.fusion.use != "off",
        "labels.queries": labels != "clicks",
        "labels.qrels": labels == "qrels",
    }
    return used.get(name, True)


def _check_dataflow(options: PipelineOptions) -> None:
    """Refuse flags that Dataflow does not take; Beam would look for a bucket of its own first, and ask the network."""
    if _runner(options) != "dataflowrunner":
        return
    cloud, validator = options.view_as(GoogleCloudOptions), PipelineOptionsValidator(options, None)
    places = [validator.validate_gcs_path(cloud, name) for name in ("temp_location", "staging_location")]
    problems = validator.validate_cloud_options(cloud)
    if all(places):  # either will do
        problems += places[0]
    if problems:
        remedy = "give --project=ID, --region=NAME and --temp_location=gs://BUCKET/FOLDER after `--`"
        raise ConfigError(f"--runner=DataflowRunner: {' '.join(problems)} {remedy}")
    try:
        found = importlib.util.find_spec("google.cloud.dataflow")
    except ModuleNotFoundError:  # of a parent
        found = None
    if not found:
        raise ConfigError("--runner=DataflowRunner needs Google's clients: pip install 'nightrank[dataflow]'")


def _check_packages(options: PipelineOptions) -> None:
    """Refuse containers of Beam's own image, in which there is neither Nightrank nor an engine."""
    portable, setup = options.view_as(PortableOptions), options.view_as(SetupOptions)
    if (portable.environment_type or "DOCKER").upper() != "DOCKER":
        return
    if _runner(options) == "dataflowrunner":
        flag, given = "--sdk_container_image", options.view_as(WorkerOptions).sdk_container_image
    else:
        flag, given = "--environment_config", portable.environment_config
    if given or any(one.startswith("docker_container_image=") for one in portable.environment_options or []):
        return
    image = f"{flag}=IMAGE, an image made from deploy/Dockerfile"
    if not (setup.setup_file or setup.extra_packages):
        raise ConfigError(f"the workers would not have Nightrank: give {image}")
    if not (setup.requirements_file or setup.extra_packages):
        raise ConfigError(
            "--setup_file alone brings the workers no engine, as each engine is an extra: give "
            f"--requirements_file=deploy/requirements-cpu.txt, too, or {image}"
        )


def _value(config: Config, name: str) -> str:
    return str(functools.reduce(getattr, name.split("."), config))


def workers_are_here(options: PipelineOptions) -> bool:
    """Whether the workers are on this machine: in this process, or started here by a runner that is here, too."""
    if is_local_run(options):
        return True
    environment = (options.view_as(PortableOptions).environment_type or "").upper()
    if environment == "LOOPBACK":
        return True
    at = _endpoints(options)
    if (
        environment == "PROCESS"
    ):  # an address of this machine may be a tunnel; but then its workers' program is not here
        return Path(_command(options)).is_file() and all(_HERE.match(one) for one in at)
    runner = _runner(options)
    if environment or runner == "portablerunner":
        return False
    # Without an environment these start LOOPBACK workers where their own engine is within this process.
    if runner == "flinkrunner":
        return str(options.view_as(FlinkRunnerOptions).flink_master) in ("[local]", "[auto]")
    if runner == "sparkrunner":
        return str(options.view_as(SparkRunnerOptions).spark_master_url).startswith("local")
    return runner == "prismrunner" or runner.endswith("directrunner")  # SwitchingDirectRunner, and such


def _runner(options: PipelineOptions) -> str:
    return str(options.view_as(StandardOptions).runner).rpartition(".")[2].lower()


def _endpoints(options: PipelineOptions) -> Iterator[str]:
    """Addresses of the engine, and of the server that takes its jobs."""
    yield options.view_as(PortableOptions).job_endpoint or "localhost"
    yield options.view_as(FlinkRunnerOptions).flink_master
    yield options.view_as(SparkRunnerOptions).spark_master_url


def _command(options: PipelineOptions) -> str:
    """The program of PROCESS workers; "" if none is given as Beam expects it."""
    portable = options.view_as(PortableOptions)
    for option in portable.environment_options or []:
        name, _, value = option.partition("=")
        if name == "process_command":
            return str(value)
    try:
        return str(json.loads(portable.environment_config or "{}").get("command", ""))
    except (ValueError, AttributeError):
        return ""
