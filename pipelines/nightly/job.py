"""The job of a night as its runner would get it: stages, resource hints and flags. Nothing is sent anywhere."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import create_runner
from apache_beam.transforms.environments import DockerEnvironment
from apache_beam.transforms.resources import AcceleratorHint, MinRamHint

from pipelines.beam_options import LOCAL_RUNNER, is_local_run
from pipelines.nightly.graph import build
from pipelines.nightly.prepare import Night
from rerank_core.redact import redact_tree

HINTS = {MinRamHint.urn: "min_ram_bytes", AcceleratorHint.urn: "accelerator"}
_SECRET = re.compile(
    "secret|password|token|connection_string|access_key"
)  # of names of flags, as of Beam's S3
PARTS = ("Sample", "Rest", "Rerank")
"""Transforms that are shown by what they are made of."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the graph."""

    name: str
    transforms: int  # that it is made of
    hints: dict[str, str]  # resource hint -> value; {}: the runner's usual workers


@dataclasses.dataclass(frozen=True)
class Job:
    """What a runner is given."""

    runner: str
    local: bool  # it runs in this process, or in processes of it
    options: dict[str, Any]  # Beam's flags that differ from their defaults
    image: str  # of the workers' container; "" is the runner's own
    stages: list[Stage]
    graph_bytes: int  # of the serialised graph


def describe_job(night: Night, options: PipelineOptions) -> Job:
    """Build the graph of a night for whichever runner, without it: no credentials, no server, no engine is needed."""
    # The flags are those of the real runner, so the graph is, too; this one only keeps Beam from looking for it.
    pipeline = beam.Pipeline(runner=create_runner(LOCAL_RUNNER), options=options)
    shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)  # which a run would remove
    build(pipeline, night)
    image = str(options.view_as(WorkerOptions).sdk_container_image or "")
    environment = DockerEnvironment.from_container_image(image or "default")
    graph = pipeline.to_runner_api(default_environment=environment)
    return Job(
        local=is_local_run(options),
        runner=str(options.view_as(StandardOptions).runner),
        options={
            name: _shown(name, value)
            for name, value in options.get_all_options(drop_default=True).items()
            if value and name != "runner"
        },
        image=image,
        stages=stages_of(graph),
        graph_bytes=graph.ByteSize(),
    )


def stages_of(graph: beam_runner_api_pb2.Pipeline) -> list[Stage]:
    """The stages of a serialised graph, in its order, each with the hints of its workers.

    Only what runs in workers counts.
    """
    components, found = graph.components, dict[tuple[str, tuple[tuple[str, str], ...]], int]()
    for transform in _walk(graph, graph.root_transform_ids):
        if transform.subtransforms or not transform.environment_id:
            continue
        hints = components.environments[transform.environment_id].resource_hints
        named = tuple(sorted((HINTS.get(urn, urn), value.decode()) for urn, value in hints.items()))
        key = _stage(transform.unique_name), named
        found[key] = found.get(key, 0) + 1
    return [Stage(name, count, dict(hints)) for (name, hints), count in found.items()]


def _walk(
    graph: beam_runner_api_pb2.Pipeline, ids: Iterable[str]
) -> Iterator[beam_runner_api_pb2.PTransform]:
    for one in ids:
        transform = graph.components.transforms[one]
        yield transform
        yield from _walk(graph, transform.subtransforms)


def _stage(label: str) -> str:
    """The stage that a transform belongs to, by its full label."""
    return next((part for part in label.split("/") if part not in PARTS), label)


def _shown(name: str, value: Any) -> Any:
    return "..." if _SECRET.search(name) else redact_tree(value)  # such as a process's environment
