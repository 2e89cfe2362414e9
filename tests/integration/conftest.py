"""Real servers for the tests in this folder, started once a session.

The server is the one that the installed client belongs to: client 9 cannot talk to server 8, so `make test` runs
this folder twice, the second time with the 8.19 client first on the path.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import elasticsearch
import pytest

from rerank_core import redact
from rerank_core.config.night import Config
from tests.support import tiny as tiny_night
from tests.support.servers.elasticsearch import VERSIONS, Node
from tests.support.servers.elasticsearch_build import Unavailable
from tests.support.tiny import Tiny

VERSION = VERSIONS[elasticsearch.__version__[0]]
NODES = {"es", "secure_es"}

Name = Callable[[str], str]
T = TypeVar("T")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test that needs a server."""
    if NODES & set(getattr(item, "fixturenames", ())):
        item.add_marker("servers")


def started(**options: object) -> Iterator[Node]:
    """A running node."""
    with require(lambda: Node(VERSION, **options)) as node:  # type: ignore[arg-type]
        yield node


def require(prepare: Callable[[], T]) -> T:
    """What `prepare` returns; without what it takes a skip, or a failure where servers are required."""
    try:
        return prepare()
    except Unavailable as error:
        if os.environ.get("NIGHTRANK_REQUIRE_SERVERS") == "1":
            pytest.fail(f"NIGHTRANK_REQUIRE_SERVERS=1, but: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
def night_again(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The night of the fixture `night`, with bad lines and dead letters, into a folder of its own.

    This process hides what worker processes do, and not what earlier tests let it know as secrets.
    """
    monkeypatch.setattr(redact, "_known", None)
    monkeypatch.setattr(redact, "_forms", ())
    source, output = {"log": str(tiny.log)}, {"max_rejected_share": 0.5}
    return tiny_night.make_config(tiny, tmp_path / "output", source=source, output=output)


@pytest.fixture(scope="session", params=[VERSION], ids=lambda version: f"elasticsearch-{version}")
def es() -> Iterator[Node]:
    """A node without security, shared by the session."""
    yield from started()


@pytest.fixture(scope="session", params=[VERSION], ids=lambda version: f"elasticsearch-{version}")
def secure_es() -> Iterator[Node]:
    """A node with verified TLS and users (`node.security`), shared by the session."""
    yield from started(security=True)


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hands every test, and leaves behind it, a node that runs as it first did."""
    nodes = [request.getfixturevalue(name) for name in sorted(NODES & set(request.fixturenames))]
    yield
    for node in nodes:
        node.restore()


@pytest.fixture
def es_name(es: Node) -> Iterator[Name]:
    """`es_name("log")`: a name of this test's own for an index or an alias of `es`, deleted after the test."""
    yield from named(es)


@pytest.fixture
def secure_es_name(secure_es: Node) -> Iterator[Name]:
    """The same for `secure_es`."""
    yield from named(secure_es)


def named(node: Node) -> Iterator[Name]:
    """Names that begin with one test's own prefix."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    yield lambda name: f"{prefix}-{name}"
    node.restore()
    node.request("DELETE", f"/{prefix}-*?expand_wildcards=all")
