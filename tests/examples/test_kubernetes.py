"""Flink on Kubernetes in examples/: what its schemas take, and whose parts fit together. No cluster runs it here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions
from typer.main import get_command

from pipelines.beam_options import beam_options
from pipelines.cli.app import app
from pipelines.nightly.remote import check_remote, workers_are_here
from rerank_core.config.night import Config, load_config
from rerank_core.errors import HELD, INPUT, USAGE, ConfigError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "kubernetes" / "flink.yaml"


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))


def spec(kind: str, name: str) -> Any:
    (found,) = (one for one in manifests() if one["kind"] == kind and one["metadata"]["name"] == name)
    return found["data"] if kind == "ConfigMap" else found["spec"]


def pods() -> dict[str, Any]:
    """The pods by name."""
    job = spec("CronJob", "nightrank-flink")["jobTemplate"]["spec"]["template"]["spec"]
    deployed = {one["metadata"]["name"]: one for one in manifests() if one["kind"] == "Deployment"}
    return {name: one["spec"]["template"]["spec"] for name, one in deployed.items()} | {"night": job}


def containers() -> dict[str, Any]:
    return {container["name"]: container for pod in pods().values() for container in pod["containers"]}


def call() -> tuple[list[str], list[str]]:
    """The arguments of the night, and its flags for Beam."""
    arguments = containers()["nightrank"]["args"]
    at = arguments.index("--")
    return arguments[1:at], arguments[at + 1 :]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "night.toml").write_text(spec("ConfigMap", "nightrank-flink")["night.toml"])
    return load_config(tmp_path / "night.toml")


def test_kubernetes_takes_the_manifests() -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    wrong = manifests()[-1]
    wrong["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["arg"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_the_call_is_of_options_and_flags_that_are_there() -> None:
    options, _ = call()
    known = {name for one in get_command(app).commands["nightly"].params for name in one.opts}  # type: ignore[attr-defined]
    assert {option.partition("=")[0] for option in options} <= known
    beam_options(call()[1])  # raises for an unknown one


def test_the_workers_have_every_path_and_no_more_is_assumed(config: Config) -> None:
    options = beam_options(call()[1])
    assert not workers_are_here(options)
    check_remote(config, options)
    (shared,) = config.workers.shared_paths
    for name in ("worker", "nightrank"):
        mounts = {mount["mountPath"]: mount["name"] for mount in containers()[name]["volumeMounts"]}
        assert mounts[shared] == "shared"
    other = config.__class__(source=config.source, output=config.output)
    with pytest.raises(ConfigError, match=f"output.path = '{config.output.path}'"):
        check_remote(other, options)


def test_addresses_are_of_services_and_of_what_listens_there() -> None:
    portable = beam_options(call()[1]).view_as(PortableOptions)
    services = {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "Service"}
    master = next(one for one in containers()["job-server"]["args"] if one.startswith("--flink-master="))
    for address in (portable.job_endpoint, portable.artifact_endpoint, master.partition("=")[2]):
        name, _, port = address.partition(":")
        assert int(port) in {one["port"] for one in services[name]["ports"]}
        (selected,) = (
            pod["spec"]["template"]
            for pod in manifests()
            if pod["kind"] == "Deployment"
            and pod["spec"]["template"]["metadata"]["labels"] == services[name]["selector"]
        )
        ports = {one["containerPort"] for one in selected["spec"]["containers"][0]["ports"]}
        assert {one["port"] for one in services[name]["ports"]} <= ports
    pool = int(portable.environment_config.rpartition(":")[2])
    assert pool in {one["containerPort"] for one in containers()["worker"]["ports"]}
    assert containers()["worker"]["args"] == [
        "--worker_pool"
    ]  # of Beam's boot program, the image's entry point


def test_there_is_a_slot_for_each_share_of_the_work() -> None:
    properties = {
        name: yaml.safe_load(container["env"][0]["value"])
        for name, container in containers().items()
        if name in ("jobmanager", "taskmanager")
    }
    slots = properties["taskmanager"]["taskmanager.numberOfTaskSlots"]
    flink = beam_options(call()[1]).view_as(FlinkRunnerOptions)
    assert flink.parallelism == spec("Deployment", "flink-taskmanager")["replicas"] * slots
    assert {one["jobmanager.rpc.address"] for one in properties.values()} == {"flink-jobmanager"}


def test_versions_agree() -> None:
    beam = re.search(r"ARG BEAM=([\d.]+)", (ROOT / "deploy" / "Dockerfile").read_text())
    server, flink = containers()["job-server"]["image"], containers()["taskmanager"]["image"]
    assert beam
    version = re.fullmatch(r"apache/beam_flink([\d.]+)_job_server:([\d.]+)", server)
    assert version
    assert version[2] == beam[1]
    assert flink.startswith(f"flink:{version[1]}-")
    assert containers()["jobmanager"]["image"] == flink
    assert version[1] in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS


def test_credentials_are_files_of_the_pods_that_need_them() -> None:
    for name, container in containers().items():
        given = {one["name"]: one.get("value") for one in container.get("env", [])}
        needs = name in ("worker", "nightrank")
        assert (given.get("NIGHTRANK_ES_API_KEY_FILE") == "/secrets/api-key") == needs
        assert ("/secrets" in {mount["mountPath"] for mount in container["volumeMounts"]}) == needs
    assert "secret" not in json.dumps(call())


def test_volumes_are_there_and_final_codes_end_the_job() -> None:
    for pod in pods().values():
        mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    (final,) = (
        rule
        for rule in spec("CronJob", "nightrank-flink")["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
    )
    assert set(final["onExitCodes"]["values"]) == {USAGE, INPUT, HELD}


def test_all_pods_run_as_the_user_of_flinks_image() -> None:
    """Its entry point writes Flink's configuration, which belongs to 9999; and what is shared has one owner."""
    for pod in pods().values():
        context = pod["securityContext"]
        assert {context[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {9999}
        assert not any("runAsUser" in one.get("securityContext", {}) for one in pod["containers"])
