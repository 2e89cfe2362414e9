"""The test servers themselves: what every other test here stands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import elasticsearch
import pytest
from elastic_transport import TlsError

from tests.support.servers.elasticsearch import Node

Name = Callable[[str], str]
ROOT = Path(__file__).resolve().parents[2]


def test_a_node_answers_with_its_version(es: Node) -> None:
    assert es.client().info()["version"]["number"] == es.version


def test_the_english_analyzer_stems_and_drops_stop_words(es: Node) -> None:
    answer = es.client().indices.analyze(analyzer="english", text="The winning runners")
    assert [token["token"] for token in answer["tokens"]] == ["win", "runner"]


def test_documents_survive_kill_9_and_a_restart_on_the_same_port(es: Node, es_name: Name) -> None:
    client, index, url = es.client(), es_name("docs"), es.url
    client.index(index=index, id="a", document={"text": "kept"})
    es.kill9()
    with pytest.raises(elasticsearch.ConnectionError):
        client.options(max_retries=0).get(index=index, id="a")
    es.start()
    assert es.url == url
    assert client.get(index=index, id="a")["_source"] == {"text": "kept"}


def test_a_restart_takes_passing_settings_and_keeps_documents(es: Node, es_name: Name) -> None:
    index = es_name("docs")
    es.client().index(index=index, id="a", document={"text": "kept"})
    es.restart({"search.keep_alive_interval": "1s"})
    assert es.client().get(index=index, id="a")["found"]
    (node,) = es.client().nodes.info(metric="settings")["nodes"].values()
    assert node["settings"]["search"]["keep_alive_interval"] == "1s"
    es.restore()
    (node,) = es.client().nodes.info(metric="settings")["nodes"].values()
    assert "search" not in node["settings"]


def test_a_paused_node_lets_a_request_time_out_and_goes_on_when_resumed(es: Node) -> None:
    es.pause()
    try:
        with pytest.raises(elasticsearch.ConnectionTimeout):
            es.client(request_timeout=1, max_retries=0).info()
    finally:
        es.resume()
    assert es.client().info()["tagline"]


def test_each_test_has_index_names_of_its_own(es: Node, es_name: Name) -> None:
    assert es_name("a") != es_name("b")
    assert not es.client().indices.exists(index=es_name("docs"))


def test_a_node_with_security_accepts_good_credentials_over_verified_tls(secure_es: Node) -> None:
    assert secure_es.url.startswith("https://")
    client = secure_es.client()
    key = client.security.create_api_key(name="night")["encoded"]
    token = client.security.get_token(
        grant_type="password", username=secure_es.security.admin[0], password=secure_es.security.admin[1]
    )["access_token"]
    assert client.info()["version"]["number"] == secure_es.version
    for login in ({"basic_auth": secure_es.security.reader}, {"api_key": key}, {"bearer_auth": token}):
        assert secure_es.client(**{"basic_auth": None, **login}).info()["tagline"]


@pytest.mark.parametrize(
    "login",
    [
        {"basic_auth": None},
        {"basic_auth": ("admin", "wrong")},
        {"basic_auth": None, "api_key": "d3Jvbmc6d3Jvbmc="},
        {"basic_auth": None, "bearer_auth": "wrong"},
    ],
    ids=["nobody", "password", "api_key", "bearer"],
)
def test_a_node_with_security_refuses_bad_credentials(secure_es: Node, login: dict[str, object]) -> None:
    with pytest.raises(elasticsearch.AuthenticationException):
        secure_es.client(**login).info()


def test_its_certificate_does_not_verify_without_its_authority(secure_es: Node) -> None:
    with pytest.raises(TlsError):
        elasticsearch.Elasticsearch(secure_es.url, basic_auth=secure_es.security.admin, max_retries=0).info()


def test_its_reader_may_read_and_not_write(secure_es: Node, secure_es_name: Name) -> None:
    index, reader = secure_es_name("docs"), secure_es.client(basic_auth=secure_es.security.reader)
    secure_es.client().index(index=index, id="a", document={"text": "x"}, refresh=True)
    point = reader.open_point_in_time(index=index, keep_alive="1m")["id"]
    assert reader.search(pit={"id": point, "keep_alive": "1m"})["hits"]["total"]["value"] == 1
    with pytest.raises(elasticsearch.AuthorizationException):
        reader.index(index=index, document={"text": "y"})


# A process that starts a node, pauses it, so that it cannot end by itself, and is then killed with -9.
OWNER = """
import os, signal, sys
from tests.support.servers.elasticsearch import Node
node = Node(sys.argv[1]).start()
print(node.pid(), node.folder, flush=True)
node.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_node_dies_with_the_process_that_started_it(es: Node) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", OWNER, es.version], capture_output=True, text=True, cwd=ROOT
    )
    assert owner.returncode == -signal.SIGKILL, owner.stderr
    pid, folder = owner.stdout.split(maxsplit=1)
    until = time.monotonic() + 300
    while (alive(int(pid)) or Path(folder.strip()).exists()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(int(pid))
    assert not Path(folder.strip()).exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
