"""Which store a path is in, and what its failures are called."""

from __future__ import annotations

import pytest
from apache_beam.io.filesystem import BeamIOError
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.storage import object_stores
from pipelines.storage.object_stores import StoreError, answered, check_installed
from rerank_core.errors import ConfigError
from tests.support.object_store import MemoryFileSystem


class _Answer(Exception):
    def __init__(self, status: int, text: str = "said no"):
        super().__init__(text)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class _Coded(Exception):
    code = 404


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (_Answer(404), FileNotFoundError, "no such object or bucket"),
        (_Coded("gone"), FileNotFoundError, "no such object or bucket"),
        (BeamIOError("listing failed", {"mem://b/o": _Answer(404)}), FileNotFoundError, "no such object"),
        (_Answer(403), StoreError, "the object store answers: said no"),
        (BeamIOError("listing failed", {"mem://b/o": RuntimeError("two\nlines")}), StoreError, "two lines"),
        (KeyError("x"), StoreError, "answers: 'x'"),
        (TimeoutError("no answer"), StoreError, "no answer"),
    ],
)
def test_what_a_client_raises_is_an_error_of_the_system_that_names_the_object(
    error: Exception, kind: type[OSError], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised, answered("mem://b/o"):
        raise error
    assert raised.value.filename == "mem://b/o"
    with pytest.raises(type(error)), answered("/local"):
        raise error


def test_secrets_are_not_in_what_a_store_answers() -> None:
    with pytest.raises(StoreError) as raised, answered("mem://b/o"):
        raise _Answer(403, "The key AKIAABCDEFGHIJKLMNOP is not allowed")
    assert "AKIA" not in str(raised.value)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str
) -> None:
    monkeypatch.setitem(object_stores.EXTRAS, scheme, ("nosuch.module", extra))
    with pytest.raises(ConfigError, match=f"needs nosuch.module, .*pip install 'nightrank\\[{extra}\\]'"):
        check_installed(f"{scheme}://bucket/output")
    for command in (["runs"], ["verify"], ["rollback"]):
        result = CliRunner().invoke(app, [*command, f"{scheme}://bucket/output"])
        assert result.exit_code == 2
        assert f"pip install 'nightrank[{extra}]'" in " ".join(result.output.split())


def test_a_store_that_does_not_answer_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def _list(self: object, prefix: str) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setattr(MemoryFileSystem, "_list", _list)
    result = CliRunner().invoke(app, ["runs", "mem://bucket/output"])
    assert result.exit_code == 3
    assert "connection refused" in " ".join(result.output.split())
