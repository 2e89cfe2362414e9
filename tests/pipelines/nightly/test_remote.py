"""Local paths that workers on other machines need are refused before the start, whatever the key."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.beam_options import beam_options
from pipelines.nightly.prepare import prepare
from pipelines.nightly.remote import ANYWHERE, DRIVER, FILE, NEEDS, check_paths, workers_are_here
from rerank_core.config.night import AT_STORES, PATHS, Config, parse_config
from rerank_core.errors import ConfigError
from tests.conftest import MakeConfig
from tests.support.fakes import forbidden
from tests.support.tiny import DAY

REMOTE = ["--runner=PortableRunner", "--job_endpoint=engine:8099", "--environment_type=EXTERNAL"]
STORED = {  # nothing of it is on this machine
    "source": {"kind": "local", "log": "gs://logs/day.jsonl", "index": "s3://search/index"},
    "output": {"path": "gs://lists/reranked"},
}


USED: dict[str, dict[str, Any]] = {  # what makes a night read the path, where it otherwise does not
    "registry.path": {"scoring": {"model": "registry:serving"}},
    "cascade.model": {"cascade": {"enabled": True}},
    "labels.queries": {"labels": {"source": "answers"}},
    "labels.qrels": {"labels": {"source": "qrels"}},
}
UNUSED: list[tuple[str, dict[str, Any]]] = [
    ("source.log", {"source": {"kind": "elasticsearch", "log": "/log"}}),
    ("source.index", {"source": {"kind": "elasticsearch", "index": "/index"}}),
    (
        "source.elasticsearch.ca_file",
        {"source": STORED["source"] | {"elasticsearch": {"ca_file": "/ca.pem"}}},
    ),
    ("registry.path", {"registry": {"path": "/models"}}),
    ("cascade.model", {"cascade": {"model": "/model"}}),
    ("fusion.bi_encoder", {"fusion": {"use": "off", "bi_encoder": "/model"}}),
    ("tags.recogniser_model", {"tags": {"enabled": False, "recogniser_model": "/model"}}),
    ("tags.recogniser_model", {"tags": {"recogniser": "rules", "recogniser_model": "/model"}}),
    ("labels.queries", {"labels": {"queries": "/queries.jsonl"}}),
    ("labels.qrels", {"labels": {"source": "answers", "queries": "gs://q", "qrels": "/qrels.tsv"}}),
    (
        "labels.queries",
        {"labels": {"source": "answers", "queries": "/queries.jsonl"}, "mining": {"enabled": False}},
    ),
]
"""A path of each kind that a night does not read, as configured here."""


def stored(name: str = "", value: Any = "", *, more: dict[str, Any] | None = None) -> Config:
    """A configuration whose paths are at object stores, but for the one key; `more` are sections of it."""
    raw: dict[str, Any] = {section: dict(keys) for section, keys in STORED.items()}
    if name:
        *sections, key = name.split(".")
        node = raw
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    if name.startswith("source.elasticsearch"):
        raw["source"]["kind"] = "elasticsearch"
    for section, keys in USED.get(name, {}).items():
        raw[section] = raw.get(section, {}) | keys
    return parse_config(raw | (more or {}), base=Path("/"))


def test_every_path_of_a_configuration_is_one_that_workers_need_or_not() -> None:
    known = {f"{section}.{key}" for section, keys in PATHS.items() for key in keys}
    # A recogniser's is a name or a folder, and so is made absolute apart from PATHS.
    assert set(NEEDS) == known | {"tags.recogniser_model"}
    assert {name for name, need in NEEDS.items() if need == ANYWHERE} <= AT_STORES


@pytest.mark.parametrize("name", [name for name, need in NEEDS.items() if need != DRIVER])
def test_a_local_path_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    config, options = stored(name, str(tmp_path)), beam_options(REMOTE)
    with pytest.raises(ConfigError) as refused:
        check_paths(config, options)
    message = str(refused.value)
    assert f"{name} = {str(tmp_path)!r}" in message
    assert "--runner=PortableRunner" in message
    assert "workers.shared_paths" in message
    assert ("object store" in message) == (NEEDS[name] == ANYWHERE)
    assert "\n" not in message
    check_paths(config, beam_options([]))
    shared = dataclasses.replace(config.workers, shared_paths=(str(tmp_path.parent),))
    check_paths(dataclasses.replace(config, workers=shared), options)
    other = dataclasses.replace(config.workers, shared_paths=(f"{tmp_path}-other", str(tmp_path / "below")))
    with pytest.raises(ConfigError):
        check_paths(dataclasses.replace(config, workers=other), options)


@pytest.mark.parametrize("name", [name for name, need in NEEDS.items() if need == DRIVER])
def test_a_path_that_only_the_driver_reads_may_be_local(name: str, tmp_path: Path) -> None:
    value = [str(tmp_path)] if name in ("promotion.judged_sets", "workers.shared_paths") else str(tmp_path)
    check_paths(stored(name, value), beam_options(REMOTE))


@pytest.mark.parametrize("name", [name for name, need in NEEDS.items() if need == FILE])
def test_a_name_is_no_path(name: str) -> None:
    if name.startswith("source.elasticsearch"):  # these are files, and nothing else
        return
    check_paths(stored(name, "owner/model"), beam_options(REMOTE))


@pytest.mark.parametrize(
    ("name", "sections"), UNUSED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(UNUSED)]
)
def test_a_path_that_the_night_does_not_read_may_be_local(name: str, sections: dict[str, Any]) -> None:
    config = stored(more=sections)
    assert functools.reduce(getattr, name.split("."), config)
    check_paths(config, beam_options(REMOTE))


def test_all_that_is_missing_is_named_in_one_line(tmp_path: Path) -> None:
    raw = {
        "source": {"log": "log.jsonl", "index": "index"},
        "output": {"path": "out"},
        "labels": {"source": "qrels", "queries": "q.jsonl", "qrels": "qrels.tsv"},
    }
    (tmp_path / "model").mkdir()
    config = parse_config(raw | {"scoring": {"model": "model"}}, base=tmp_path)
    with pytest.raises(ConfigError) as refused:
        check_paths(config, beam_options(REMOTE))
    for name in (
        "source.log",
        "source.index",
        "output.path",
        "labels.queries",
        "labels.qrels",
        "scoring.model",
    ):
        assert name in str(refused.value)


def test_a_night_does_not_even_open_its_source(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="source.log = .*source.index = .*output.path = "):
        prepare(make_config(), run_date=DAY, options=beam_options(REMOTE), load=forbidden())


HERE = json.dumps({"command": sys.executable})
ELSEWHERE = json.dumps({"command": "/opt/apache/beam/no-such-boot"})


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        ([], True),
        (["--runner=DirectRunner", "--direct_running_mode=multi_processing"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=SwitchingDirectRunner"], True),
        (["--runner=BundleBasedDirectRunner"], True),
        (["--runner=FlinkRunner"], True),  # its own engine, with LOOPBACK workers
        (["--runner=FlinkRunner", "--flink_master=[local]"], True),
        (["--runner=SparkRunner"], True),
        (["--runner=FlinkRunner", "--flink_master=flink:8081"], False),
        (["--runner=FlinkRunner", "--flink_master=localhost:8081"], False),  # DOCKER
        (["--runner=SparkRunner", "--spark_master_url=spark://spark:7077"], False),
        (["--runner=PortableRunner", "--job_endpoint=localhost:8099"], False),  # DOCKER
        (["--runner=PortableRunner", "--job_endpoint=flink:8099", "--environment_type=LOOPBACK"], True),
        (["--runner=FlinkRunner", "--flink_master=flink:8081", "--environment_type=LOOPBACK"], True),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=PROCESS"], False),
        *(
            (
                [
                    "--runner=PortableRunner",
                    f"--job_endpoint={host}:8099",
                    "--environment_type=PROCESS",
                    f"--environment_config={config}",
                ],
                here,
            )
            for host, config, here in [
                ("localhost", HERE, True),
                ("127.0.0.1", HERE, True),
                ("engine", HERE, False),
                ("localhost.example.com", HERE, False),
                ("localhost", ELSEWHERE, False),
                ("localhost", "[]", False),
                ("localhost", "{", False),
            ]
        ),
        (
            [
                "--runner=FlinkRunner",
                "--flink_master=http://localhost:8081",
                "--environment_type=PROCESS",
                f"--environment_options=process_command={sys.executable}",
            ],
            True,
        ),
        *(
            (
                [
                    "--runner=SparkRunner",
                    f"--spark_master_url=spark://{host}:7077",
                    "--environment_type=PROCESS",
                    f"--environment_config={HERE}",
                ],
                here,
            )
            for host, here in [("localhost", True), ("spark.example", False)]
        ),
        (["--runner=PortableRunner", "--environment_type=EXTERNAL", "--job_endpoint=localhost:1"], False),
        (["--runner=DataflowRunner"], False),
    ],
)
def test_where_workers_are(flags: list[str], here: bool) -> None:
    assert workers_are_here(beam_options(flags)) is here
