"""Schedules in examples/: each is what its scheduler takes, calls a command that is there, and knows its exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from pipelines.cli.app import app
from rerank_core.config.night import load_config
from rerank_core.errors import HELD, INPUT, LOCKED, USAGE

ROOT = Path(__file__).parents[2]
SCHEDULES = ROOT / "examples" / "schedules"
FINAL = {USAGE, INPUT, HELD}
"""What another try cannot mend."""


def job() -> dict[str, Any]:
    """The Kubernetes job."""
    (found,) = (one for one in manifests() if one["kind"] == "CronJob")
    return dict(found["spec"]["jobTemplate"]["spec"])


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((SCHEDULES / "cronjob.yaml").read_text(encoding="utf-8")))


def calls(name: str) -> list[list[str]]:
    """The words of every call of nightrank in a file, whatever language it is in."""
    text = (SCHEDULES / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        found = [
            " ".join(re.findall(r'"([^"]*)"', one))
            for one in re.findall(r"COMMAND = \[(.*?)\]", text, re.DOTALL)
        ]
    else:
        found = re.findall(r"^.*?((?:\S*/)?nightrank nightly [^\n>]*)", text, re.MULTILINE)
    return [shlex.split(one.removeprefix("ExecStart="))[1:] for one in found]


@pytest.mark.parametrize("name", ["night.sh", "nightrank.service", "nightrank_dag.py", "cronjob.yaml"])
def test_a_call_is_of_a_command_and_of_options_that_are_there(name: str) -> None:
    ((command, *words),) = calls(name)
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    known = {option for parameter in parameters for option in parameter.opts}
    used = [word for word in words if word.startswith("-")]
    assert {"--config", "--finish-by"} <= set(used) <= known


def test_the_crontab_runs_the_script_and_says_whom_to_mail() -> None:
    lines = (SCHEDULES / "crontab").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert set(settings) == {"SHELL", "PATH", "MAILTO", "CRON_TZ"}
    (line,) = [line for line in lines if re.match(r"[0-9*]", line)]
    *when, user, script = line.split()
    assert re.fullmatch(r"[0-9]+ [0-9]+ \* \* \*", " ".join(when))
    assert (user, Path(script).name) == ("search", "night.sh")
    assert os.access(SCHEDULES / "night.sh", os.X_OK)
    assert "%" not in line  # cron makes it a line end


def run_script(folder: Path, *codes: int) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """night.sh beside commands that end with those codes, one after the other; what each was called with."""
    shutil.copy(SCHEDULES / "night.sh", folder)
    (folder / "bin").mkdir()
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    stub = folder / "bin" / "nightrank"
    stub.write_text(
        f'#!/bin/sh\ncd {folder}\necho "$NIGHTRANK_ES_API_KEY $*" >> calls\necho progress\n'
        "code=$(head -n 1 codes)\nsed -i 1d codes\nexit $code\n"
    )
    stub.chmod(0o755)
    (folder / "secrets.env").write_text("NIGHTRANK_ES_API_KEY='k e y'\n")
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "NIGHTRANK_RETRY_SECONDS": "0",
    }
    done = subprocess.run(
        [folder / "night.sh"], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )
    return done, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([0], ""),
        ([LOCKED, LOCKED, 0], ""),
        ([HELD], "nightrank: HELD BACK, readers keep the night before; read its report, then release it"),
        ([LOCKED, USAGE], "nightrank: exit code 2, readers keep the night before"),
        ([LOCKED] * 6, "nightrank: exit code 4, readers keep the night before"),
        ([137], "nightrank: exit code 137, readers keep the night before"),
    ],
)
def test_cron_mails_a_bad_night_alone(tmp_path: Path, codes: list[int], said: str) -> None:
    done, called = run_script(tmp_path, *codes)
    assert done.returncode == codes[-1]
    assert (done.stdout[:-1].startswith(said) and done.stdout.count("\n") == 1) if said else not done.stdout
    assert not done.stderr
    assert called == ["k e y nightly --config night.toml --finish-by 06:00"] * len(codes)
    (log,) = (tmp_path / "log").iterdir()
    assert log.read_text() == "progress\n" * len(codes)


UNITS = ("nightrank.service", "nightrank.timer", "nightrank-failed.service")


def verify(folder: Path, **changed: str) -> str:
    """What systemd says of the units; `changed` are texts to replace in them."""
    for name in UNITS:
        text = (SCHEDULES / name).read_text().replace("/srv/search/.venv/bin/nightrank", sys.executable)
        for old, new in changed.items():
            text = text.replace(old, new)
        (folder / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if str(folder) in line or "nightrank" in line]
    assert done.returncode == 0 or said
    return "\n".join(said)


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"),
    reason="systemd-analyze comes with systemd, which this machine does not have",
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert verify(tmp_path) == ""
    assert "Unknown key 'RuntimeMaximum'" in verify(tmp_path, RuntimeMaxSec="RuntimeMaximum")
    assert "not executable" in verify(tmp_path, **{"/bin/sh": "/bin/no-shell"})
    (when,) = re.findall(r"OnCalendar=(.*)", (SCHEDULES / "nightrank.timer").read_text())
    subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)


def test_systemd_tries_again_what_another_try_may_mend() -> None:
    text = (SCHEDULES / "nightrank.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert set(map(int, settings["RestartPreventExitStatus"].split())) == FINAL | {130, 143}
    assert settings["Restart"] == "on-failure"
    assert settings["Type"] != "oneshot"  # for which RuntimeMaxSec has no effect
    assert settings["OnFailure"] in UNITS
    assert "persistent=true" in (SCHEDULES / "nightrank.timer").read_text().lower()


def test_kubernetes_takes_the_manifests() -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    wrong = manifests()
    assert wrong[-1]["spec"]["concurrencyPolicy"] == "Forbid"
    wrong[-1]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCode"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong[-1], "1.33", strict=True)


def test_the_job_has_a_configuration_and_gives_up_where_it_must(tmp_path: Path) -> None:
    (config,) = (one for one in manifests() if one["kind"] == "ConfigMap")
    (tmp_path / "night.toml").write_text(config["data"]["night.toml"])
    night = load_config(tmp_path / "night.toml")
    (container,) = job()["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[night.output.path] == "output"
    assert set(mounts.values()) == {volume["name"] for volume in job()["template"]["spec"]["volumes"]}
    (final,) = (rule for rule in job()["podFailurePolicy"]["rules"] if rule["action"] == "FailJob")
    assert set(final["onExitCodes"]["values"]) == FINAL
    assert final["onExitCodes"]["containerName"] == container["name"]


def test_the_container_reads_its_secret_from_a_file_and_gets_signals(tmp_path: Path) -> None:
    (container,) = job()["template"]["spec"]["containers"]
    (script,) = container["args"]
    (tmp_path / "api-key").write_text("k e y")
    stub = tmp_path / "nightrank"
    stub.write_text('#!/bin/sh\necho "$NIGHTRANK_ES_API_KEY|$*|$PPID"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        [*container["command"], script.replace("/secrets/", f"{tmp_path}/")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    key, words, parent = done.stdout.strip().split("|")
    assert (key, words.split()[0]) == ("k e y", "nightly")
    assert int(parent) == os.getpid()  # exec: no shell between
    missing = script.replace("/secrets/", f"{tmp_path}/no/")
    assert subprocess.run([*container["command"], missing], capture_output=True, check=False).returncode


def airflow() -> str:
    """The interpreter that has Airflow, in a virtual environment of its own."""
    python = os.environ.get("NIGHTRANK_TEST_AIRFLOW") or f"{sys.prefix}/airflow/bin/python"
    if not Path(python).exists():
        message = f"no Airflow at {python}: make .venv/.installed-airflow"
        if os.environ.get("NIGHTRANK_REQUIRE_SERVERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return python


def test_airflow_takes_the_dag_and_its_task_knows_the_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_NIGHTRANK_ELASTICSEARCH": "http://:secret-key@es",
    }
    done = subprocess.run(
        [airflow(), ROOT / "tests/support/check_dag.py", SCHEDULES / "nightrank_dag.py", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["errors"], found["warnings"], found["tasks"]) == ({}, [], ["night"])
    assert (found["catchup"], found["active"]) == (False, 1)
    assert "15 2 * * *" in found["timetable"]
    assert found["retries"] > 0
    final = {int(code) for code, kind in found["outcomes"].items() if kind == "AirflowFailException"}
    assert final == FINAL
    assert {kind for code, kind in found["outcomes"].items() if int(code) not in FINAL | {0}} == {
        "AirflowException"
    }
    assert found["outcomes"]["0"] == "success"
    call = (
        "secret-key nightly --config /srv/search/night.toml --finish-by 06:00 --run-date 2026-03-08 --quiet"
    )
    assert set(found["calls"]) == {call}
