"""A model's folder: its files, its settings, and what is said of a folder that lacks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from rerank_core.errors import ModelError
from rerank_core.inference.model_folder import (
    OWN_SETTINGS,
    check_max_length,
    file_digest,
    file_digests,
    find_onnx,
    local_folder,
    padding_id,
    read_json,
)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_the_onnx_file_is_the_usual_one_or_the_only_one(tmp_path: Path) -> None:
    only = write(tmp_path / "only", "onnx/odd.onnx")
    assert find_onnx(only) == only / "onnx" / "odd.onnx"
    usual = write(tmp_path / "usual", "a.onnx", "model.onnx", "onnx/model.onnx")
    assert find_onnx(usual) == usual / "onnx" / "model.onnx"
    assert find_onnx(usual, "a.onnx") == usual / "a.onnx"
    several = write(tmp_path / "several", "a.onnx", "onnx/b.onnx")
    with pytest.raises(
        ModelError, match=r"has several ONNX files; set scoring.onnx_file to one of: a.onnx, onnx/b.onnx"
    ):
        find_onnx(several)
    with pytest.raises(ModelError, match=r"no c.onnx in .*one of: a.onnx, onnx/b.onnx"):
        find_onnx(several, "c.onnx")
    with pytest.raises(ModelError, match="export the model to"):
        find_onnx(write(tmp_path / "none", "config.json"))
    with pytest.raises(ModelError, match="no model folder at"):
        find_onnx(tmp_path / "nowhere")


def test_the_onnx_file_may_be_named_by_the_folder(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model_int8.onnx"):
        (tmp_path / "onnx" / name).touch()
    (tmp_path / OWN_SETTINGS).write_text('{"onnx_file": "onnx/model_int8.onnx"}')
    assert find_onnx(tmp_path).name == "model_int8.onnx"
    assert find_onnx(tmp_path, "onnx/model.onnx").name == "model.onnx"


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert local_folder(tmp_path) == tmp_path
    assert local_folder(str(tmp_path / "no" / "such")) == tmp_path / "no" / "such"


def test_digests_follow_names_and_contents(tmp_path: Path) -> None:
    write(tmp_path, "b.json", "a.json", "c.txt")
    digests = file_digests(tmp_path, ["*.json", "a*"])
    assert digests == ["a.json", file_digest(tmp_path / "a.json"), "b.json", file_digest(tmp_path / "b.json")]


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert read_json(tmp_path / "config.json") == {}
    for content, message in (("[1]", "config.json is a list, not an object"), ("{", "is not readable JSON")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=message):
            read_json(tmp_path / "config.json")


def test_max_length_is_at_most_the_models_positions(tmp_path: Path) -> None:
    bert, roberta = {"max_position_embeddings": 64}, {"max_position_embeddings": 66, "model_type": "roberta"}
    check_max_length(64, bert, folder=tmp_path)
    check_max_length(64, roberta, folder=tmp_path)
    check_max_length(10**6, {}, folder=tmp_path)
    for config in (bert, roberta):
        with pytest.raises(
            ModelError, match=r"takes at most 64 tokens .*set scoring.max_length = 64 or lower"
        ):
            check_max_length(65, config, folder=tmp_path)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mpnet"])
def test_positions_start_after_the_padding_token_of_the_configuration(tmp_path: Path, kind: str) -> None:
    """Whichever token the tokenizer pads with, and 1 where config.json leaves it out."""
    for pad, limit in (({"pad_token_id": 5}, 60), ({"pad_token_id": 1}, 64), ({}, 64)):
        config = {"max_position_embeddings": 66, "model_type": kind, **pad}
        check_max_length(limit, config, folder=tmp_path)
        with pytest.raises(ModelError, match=f"takes at most {limit} tokens"):
            check_max_length(limit + 1, config, folder=tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pad_token_id": 3}, 3),  # not the tokenizer's [PAD]: a decoder finds the last token by it
        ({"pad_token_id": 0, "vocab_size": 9}, 0),
        ({}, 1),
        ({"pad_token_id": None}, 1),
        ({"pad_token_id": -1}, 1),
        ({"pad_token_id": 9, "vocab_size": 9}, 1),
    ],
)
def test_rows_are_filled_with_the_padding_token_of_the_configuration(
    tmp_path: Path, config: dict[str, Any], expected: int
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[PAD]": 1, "b": 2, "c": 3}, unk_token="a"))
    assert padding_id(tokenizer, tmp_path, config) == expected
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "b"}}')
    assert padding_id(tokenizer, tmp_path, config) == (2 if expected == 1 else expected)


def test_a_digest_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a")
    first = file_digest(file)
    assert file_digest(file) == first
    file.write_bytes(b"ab")
    assert file_digest(file) != first
