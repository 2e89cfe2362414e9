"""TOML files as dataclasses, and their paths."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT, Positive, absolute, model_path, read_toml, validate
from rerank_core.errors import ConfigError
from rerank_core.inference.model_folder import DEFAULT_MODEL


@dataclass(frozen=True, config=STRICT)
class Part:
    size: Positive = 1


@dataclass(frozen=True, config=STRICT)
class Whole:
    parts: tuple[Part, ...] = ()


def test_tables_become_dataclasses() -> None:
    assert validate(Whole, {"parts": [{"size": 2}, {}]}, name="f.toml") == Whole((Part(2), Part(1)))


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        validate(Whole, {"parts": [{"size": 0}, {"sise": 2}]}, name="f.toml")
    assert str(raised.value).startswith("f.toml: 'parts.0.size' = 0: ")
    assert "unknown key 'parts.1.sise'; the nearest known one is 'parts.1.size'" in str(raised.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml; start from examples/a\.toml"):
        read_toml(tmp_path / "none.toml", example="examples/a.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        read_toml(tmp_path / "bad.toml", example="")


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfa = 1\r\nb = 'x'\r\n", gzip.compress(b"a = 1\nb = 'x'", mtime=0)]
)
def test_a_file_is_the_same_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    assert read_toml(tmp_path / "a.toml", example="e") == {"a": 1, "b": "x"}


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    for content, message in [
        ("a = 1".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"a = '\xe9'", "is not UTF-8"),
    ]:
        (tmp_path / "a.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=rf"cannot read the configuration .*a\.toml: .*{message}"):
            read_toml(tmp_path / "a.toml", example="e")


def test_paths_start_from_the_base_and_urls_stay(tmp_path: Path) -> None:
    assert absolute("a/../b", tmp_path) == str((tmp_path / "b").resolve())
    assert [absolute(value, tmp_path) for value in ("gs://a/b", "", True)] == ["gs://a/b", "", True]


def test_a_models_name_is_a_path_only_if_there_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert model_path("mine", tmp_path) == str((tmp_path / "mine").resolve())
    assert model_path("org/name", tmp_path) == "org/name"
    assert model_path("", tmp_path) == ""
    assert model_path("default", tmp_path) == str(DEFAULT_MODEL)
