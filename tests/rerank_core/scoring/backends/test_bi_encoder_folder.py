"""What a bi-encoder's folder says besides its weights: pooling, prompts, letter case, modules, the scale of a logit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
pytest.importorskip("sentence_transformers")

from rerank_core.errors import ModelError
from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer
from rerank_core.scoring.load import load_scorer
from tests.support.tiny_models import write_cross_encoder, write_sentence_folder

PAIRS = [
    ("who wrote the novel dune", "dune was written by frank herbert"),
    ("who wrote the novel dune", "sand moves"),
    ("who wrote the novel dune", ""),
    ("sand", "the sand moves by the dune, " * 9),
    ("the novel " * 20, "Frank Herbert WROTE"),
    ("who", "é ü 砂"),
]
LENGTH = 24
PROMPTS = {"query": "who: ", "document": "text: "}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize(
    "logit", ["[1, 2]", "{}", '{"scale": 1}', '{"scale": 0, "offset": 1}', '{"scale": "a", "offset": 1}', "3"]
)
def test_a_logit_that_cannot_be_one_is_refused(bert: Path, tmp_path: Path, logit: str) -> None:
    folder = shutil.copytree(bert, tmp_path / "logits")
    (folder / "nightrank.json").write_text(f'{{"logit": {logit}}}')
    with pytest.raises(
        ModelError, match=r"logit in .*nightrank.json is .*; it needs a positive scale and an offset"
    ):
        load_scorer(folder, backend="torch", max_length=LENGTH)


def test_a_plain_folder_is_pooled_by_the_mean(bert: Path, tmp_path: Path) -> None:
    plain = write_cross_encoder(tmp_path / "plain", task="Model")
    cosines = BiEncoderScorer(plain, max_length=LENGTH).score(PAIRS)
    np.testing.assert_allclose(cosines, BiEncoderScorer(bert, max_length=LENGTH).score(PAIRS), atol=1e-6)


def test_the_pooling_of_older_folders(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "older")
    flags = {
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "word_embedding_dimension": 32,
    }
    (folder / "1_Pooling/config.json").write_text(json.dumps(flags))
    cosines = BiEncoderScorer(folder, max_length=LENGTH).score(PAIRS)
    expected = BiEncoderScorer(bert, max_length=LENGTH, pooling="cls").score(PAIRS)
    np.testing.assert_array_equal(cosines, expected)


def test_texts_in_lower_case(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "lower")
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    upper, lower = BiEncoderScorer(folder, max_length=LENGTH).score([("WHO", "dune"), ("who", "dune")])
    assert upper == pytest.approx(lower, abs=1e-6)  # of another row in its batch


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "1_Pooling/config.json",
            '{"pooling_mode": "lasttoken"}',
            "pools by lasttoken; supported: mean, cls",
        ),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean", "cls"]}', "pools by mean, cls; supported"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "pools by pooling_mode_max_tokens"),
        ("modules.json", '[{"type": "a.Dense", "path": "2_Dense"}]', "has a Dense in 2_Dense"),
        ("modules.json", '[{"type": "a.Transformer", "path": "0_T"}]', "has a Transformer in 0_T"),
        ("modules.json", "{}", "is not a list of modules"),
        ("modules.json", "[", "is not readable JSON"),
    ],
)
def test_a_folder_that_cannot_be_followed(
    bert: Path, tmp_path: Path, file: str, content: str, said: str
) -> None:
    folder = shutil.copytree(bert, tmp_path / "odd")
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        BiEncoderScorer(folder, max_length=LENGTH)


def test_messages_of_a_chat_template_are_refused(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "model")
    settings = {
        "modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"modality_config in .*sentence_bert_config.json has messages"):
        BiEncoderScorer(folder, max_length=LENGTH)


def test_a_prompt_that_pooling_leaves_out(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "model", prompts=PROMPTS)
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean", "include_prompt": false}')
    with pytest.raises(ModelError, match="leaves prompts out of the pooling"):
        BiEncoderScorer(folder, max_length=LENGTH)
