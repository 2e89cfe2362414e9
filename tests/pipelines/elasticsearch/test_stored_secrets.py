"""A credential in Google's Secret Manager, of which there is none here: a client with its method stands for it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.elasticsearch import secrets
from pipelines.elasticsearch.client import credentials
from rerank_core.errors import ConfigError
from tests.conftest import SECRET

NAME = "projects/search-prod/secrets/elasticsearch/versions/latest"


class Stored:
    """Secrets by their names; anything else is refused as Google refuses it, with the request in the message."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self._values = values

    def access_secret_version(self, request: dict[str, str]) -> Any:
        if request["name"] not in self._values:
            raise PermissionError(f"403 denied on {SECRET}")
        return SimpleNamespace(payload=SimpleNamespace(data=self._values[request["name"]]))


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_client", lambda: Stored({NAME: f"{SECRET}\n".encode(), f"{NAME}2": b" "}))


def test_a_key_is_read_by_its_name() -> None:
    assert credentials({"NIGHTRANK_ES_API_KEY_SECRET_NAME": NAME}) == {"api_key": SECRET}
    both = {"NIGHTRANK_ES_USERNAME": "reader", "NIGHTRANK_ES_PASSWORD_SECRET_NAME": NAME}
    assert "basic_auth" in credentials(both)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"API_KEY_SECRET_NAME": NAME, "API_KEY": SECRET}, "set beside NIGHTRANK_ES_API_KEY"),
        ({"API_KEY_SECRET_NAME": SECRET}, "must be projects/PROJECT/secrets"),
        ({"API_KEY_SECRET_NAME": f"{NAME}3"}, "cannot be read: PermissionError; .*Secret Accessor"),
        ({"API_KEY_SECRET_NAME": f"{NAME}2"}, "an empty secret"),
        ({"API_KEY_SECRET_NAME": NAME, "BEARER": SECRET}, "are set together"),
    ],
)
def test_what_cannot_be_read_is_refused_and_never_quoted(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        credentials({f"NIGHTRANK_ES_{name}": value for name, value in environment.items()})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_clients_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "google.cloud.secretmanager", None)
    with pytest.raises(ConfigError, match="needs Google's clients"):
        credentials({"NIGHTRANK_ES_API_KEY_SECRET_NAME": NAME})
