"""The job that a runner would be given: resource hints on the models alone, and nothing that needs the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.beam_options import beam_options
from pipelines.cli.app import app
from pipelines.nightly import graph
from pipelines.nightly.job import Job, describe_job
from pipelines.nightly.prepare import prepare
from pipelines.nightly.run import run
from rerank_core.config.operation import Workers
from rerank_core.errors import ConfigError
from tests.conftest import MakeConfig
from tests.support.fakes import fake, forbidden, load_fake
from tests.support.google_clients import client
from tests.support.tiny import DAY

GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
HINTED = {"min_ram_bytes": "16000000000", "accelerator": GPU}
WORKERS = {"shared_paths": ["/"], "scoring_min_ram": "16GB", "scoring_accelerator": GPU}
DATAFLOW = [
    "--runner=DataflowRunner",
    "--project=search-prod",
    "--region=europe-west1",
    "--temp_location=gs://night-bucket/tmp",
    "--sdk_container_image=registry.example.com/nightrank:gpu",
]
FLINK = [
    "--runner=PortableRunner",
    "--job_endpoint=flink:8099",
    "--environment_type=EXTERNAL",
    "--environment_config=localhost:50000",
]
CASCADE = {"enabled": True, "max_loss": 0.5, "sample_queries": 2}


def job(make_config: MakeConfig, flags: list[str], **sections: Any) -> Job:
    config, options = make_config(**{"workers": WORKERS, **sections}), beam_options(flags)
    return describe_job(prepare(config, run_date=DAY, options=options, load=forbidden()), options)


@pytest.fixture
def google() -> None:
    client("google.cloud.dataflow")


@pytest.mark.usefixtures("google")
@pytest.mark.parametrize(("flags", "cascade"), [(DATAFLOW, CASCADE), (FLINK, {})])
def test_hints_are_on_the_models_alone(
    make_config: MakeConfig, flags: list[str], cascade: dict[str, Any]
) -> None:
    found = job(make_config, flags, cascade=cascade)
    hinted = {stage.name for stage in found.stages if stage.hints}
    assert hinted == {"ScoreCandidates", "RankCandidates", "FindEvidence"} | (
        {"PruneCandidates"} if cascade else set()
    )
    assert all(stage.hints in ({}, HINTED) for stage in found.stages)
    # Kept apart from the others, with whose workers a runner could otherwise fuse them.
    assert {"ToScoring", "ToWriting", "ToMining"} <= {stage.name for stage in found.stages}


def test_without_hints_no_candidate_is_shuffled(make_config: MakeConfig) -> None:
    found = job(make_config, FLINK, workers={"shared_paths": ["/"]})
    assert not any(stage.hints or stage.name.startswith("To") for stage in found.stages)


def test_the_workers_of_this_machine_have_no_hints(make_config: MakeConfig) -> None:
    found = job(make_config, [])
    assert found.local
    assert not any(stage.hints or stage.name.startswith("To") for stage in found.stages)


def test_workers_of_their_own_change_no_byte(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_config(output={"path": str(tmp_path / "plain")}, cascade=CASCADE)
    manifest = run(plain, run_date=DAY, load=fake())
    monkeypatch.setattr(graph, "is_local_run", lambda _: False)
    own = make_config(output={"path": str(tmp_path / "own")}, cascade=CASCADE, workers=WORKERS)
    other = run(own, run_date=DAY, load=fake())
    assert other.run_id == manifest.run_id
    hashes = [
        {
            (path, file): info.sha256
            for path, table in one.tables.items()
            for file, info in table.files.items()
        }
        for one in (manifest, other)
    ]
    assert hashes[0] == hashes[1] != {}


def test_flags_are_shown_without_secrets(make_config: MakeConfig) -> None:
    flags = [
        *FLINK,
        "--s3_secret_access_key=hunter2",
        "--s3_access_key_id=AKIA1",
        "--s3_session_token=hunter3",
    ]
    shown = json.dumps(job(make_config, flags).options)
    assert "localhost:50000" in shown
    assert "hunter" not in shown
    assert "AKIA1" not in shown


@pytest.mark.parametrize(
    "environment",
    [
        '--environment_config={"command": "nightrank-worker", "env": {"NIGHTRANK_ES_API_KEY": "hunter2"}}',
        "--environment_options=process_command=nightrank-worker,process_variables=NIGHTRANK_ES_PASSWORD=hunter2",
    ],
)
def test_what_processes_have_in_their_environment_is_shown_without_secrets(
    make_config: MakeConfig, environment: str
) -> None:
    flags = [
        "--runner=PortableRunner",
        "--job_endpoint=flink:8099",
        "--environment_type=PROCESS",
        environment,
    ]
    shown = json.dumps(job(make_config, flags).options)
    assert "flink:8099" in shown
    assert "nightrank-worker" in shown
    assert "hunter2" not in shown


# --- jobs that would not be taken


@pytest.mark.usefixtures("google")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--project=", "Invalid Project ID"),
        ("--project=123", "Invalid Project ID"),
        ("--temp_location=", "temp_location"),
        ("--temp_location=/tmp", r"Invalid GCS path \(/tmp\)"),
        ("--temp_location=gs://B", "temp_location"),
        ("--job_name=Night One", "Invalid job_name"),
        ("--sdk_container_image=", "would not have Nightrank: give --sdk_container_image=IMAGE"),
    ],
)
def test_flags_that_dataflow_would_not_take_are_refused(
    make_config: MakeConfig, change: str, message: str
) -> None:
    name, _, value = change.partition("=")
    flags = [flag for flag in DATAFLOW if not flag.startswith(name)] + ([change] if value else [])
    if name == "--project" and not value:
        message = "Missing required option: project"
    with pytest.raises(ConfigError, match=message) as refused:
        job(make_config, flags)
    assert "\n" not in str(refused.value)


def test_a_runner_whose_clients_are_not_installed_is_refused(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    for find in (missing, lambda _: None):
        monkeypatch.setattr("importlib.util.find_spec", find)
        with pytest.raises(ConfigError, match=r"pip install 'nightrank\[dataflow\]'"):
            job(make_config, DATAFLOW)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "would not have Nightrank: give --environment_config=IMAGE"),
        (["--setup_file=setup.py"], "--setup_file alone brings the workers no engine"),
        (["--setup_file=setup.py", "--requirements_file=deploy/requirements-cpu.txt"], ""),
        (["--extra_package=nightrank.whl", "--extra_package=onnxruntime.whl"], ""),
        (["--environment_config=registry.example.com/nightrank:cpu"], ""),
        (["--environment_options=docker_container_image=registry.example.com/nightrank:cpu"], ""),
        (["--environment_type=EXTERNAL"], ""),  # what its workers have is not known here
    ],
)
def test_workers_that_would_lack_packages_are_refused(
    make_config: MakeConfig, flags: list[str], message: str
) -> None:
    config, options = make_config(workers=WORKERS), beam_options([*FLINK[:2], *flags])
    if not message:
        prepare(config, run_date=DAY, options=options, load=forbidden())
        return
    with pytest.raises(ConfigError, match=message):
        prepare(config, run_date=DAY, options=options, load=forbidden())


@pytest.mark.parametrize(
    "bad",
    [
        {"scoring_min_ram": "16"},
        {"scoring_min_ram": "lots"},
        {"scoring_accelerator": "nvidia-l4"},
        {"scoring_accelerator": "type:nvidia-l4"},
    ],
)
def test_hints_that_cannot_be_parsed_are_refused(make_config: MakeConfig, bad: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"workers.{next(iter(bad))}"):
        make_config(workers=bad)


@pytest.mark.parametrize("ram", ["", "16GB", "1.5 GiB", "900MB", "2TiB"])
def test_every_memory_that_a_configuration_takes_beam_takes(ram: str) -> None:
    hints = graph.scoring_hints(Workers(scoring_min_ram=ram))
    graph.stages.ReuseScores("", tagged=False).with_resource_hints(**hints)
    assert bool(hints) == bool(ram)


# --- the command


@pytest.fixture
def night_toml(make_config: MakeConfig, tmp_path: Path) -> Path:
    config = make_config()
    text = (
        f'[source]\nlog = "{config.source.log}"\nindex = "{config.source.index}"\n[output]\n'
        f'path = "{config.output.path}"\n[workers]\nshared_paths = ["/"]\nscoring_accelerator = "{GPU}"\n'
    )
    (tmp_path / "night.toml").write_text(text)
    return tmp_path / "night.toml"


@pytest.mark.usefixtures("google")
def test_a_dry_run_shows_the_job_without_credentials(
    night_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(*_: Any, **__: Any) -> None:
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr("socket.getaddrinfo", network)
    monkeypatch.setattr("pipelines.nightly.models.load_scorer", load_fake)
    call = ["nightly", "--config", str(night_toml), "--run-date", DAY.isoformat(), "--dry-run"]
    shown = CliRunner().invoke(app, [*call, "--", *DATAFLOW])
    assert shown.exit_code == 0, shown.output
    assert "runner   DataflowRunner: " in shown.output
    assert "region=europe-west1" in shown.output
    assert (
        f"workers  accelerator={GPU}: for ScoreCandidates, RankCandidates, FindEvidence alone" in shown.output
    )
    assert "Nothing was written." in shown.output
    assert not (tmp_path / "output").exists()
    data = json.loads(CliRunner().invoke(app, [*call, "--json", "--", *DATAFLOW]).stdout)
    assert data["job"]["image"] == "registry.example.com/nightrank:gpu"
    assert {"name": "ScoreCandidates", "transforms": 1, "hints": {"accelerator": GPU}} in data["job"][
        "stages"
    ]
    refused = CliRunner().invoke(app, [*call, "--", *DATAFLOW[:3]])
    assert refused.exit_code == 2
