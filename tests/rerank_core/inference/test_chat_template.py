"""A pair of texts in a model's chat template: the logits of sentence-transformers, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.scoring.backends.torch import TorchScorer
from tests.rerank_core.inference.test_encoding import wordpiece
from tests.support.tiny_models import fast_tokenizer
from tests.support.tiny_rerankers import PAIRS, edit, of_the_library, saved, write

PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}the novel"
TEMPLATES = {
    "plain": PLAIN,
    "trims": "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}answer",
    "structured": "{% for m in messages %}<{{ m.role }}>{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}"
    "{% endif %}{% endfor %}\n{% endfor %}novel",
    "tokens": "{{ cls_token }}{{ messages[-2].content }}{{ sep_token }}{{ messages[-1].content }}{{ sep_token }}",
    "passage first": "{{ messages[-1]['content'] }} by {{ messages[-2]['content'] }}? the novel",
}


def with_template(folder: Path, template: str) -> Path:
    tokenizer = fast_tokenizer(wordpiece(), typed=False)
    tokenizer.chat_template = template
    return write(folder, "Qwen3", tokenizer=tokenizer, pad_token_id=0, num_key_value_heads=2, head_dim=8)


@pytest.mark.parametrize("max_length", [60, 25])
@pytest.mark.parametrize("case", TEMPLATES)
def test_a_pair_is_rendered_by_the_chat_template(tmp_path: Path, case: str, max_length: int) -> None:
    folder = with_template(tmp_path, TEMPLATES[case])
    pairs = [*PAIRS, (" who ", " dune\nwas "), ("who wrote dune " * 3, "frank herbert " * 9)]
    scorer = TorchScorer(folder, max_length=max_length)
    expected = of_the_library(folder, pairs, max_length=max_length)
    np.testing.assert_allclose(scorer.score(pairs), expected, atol=1e-4)
    assert (scorer.overflow(pairs) > 0).any() == (max_length == 25)


def test_a_saved_chat_template_with_prompt_and_options(tmp_path: Path) -> None:
    template = PLAIN.replace("the novel", "{% if add_generation_prompt %}by frank{% endif %}")
    source = with_template(tmp_path / "source", template)
    folder = saved(tmp_path / "model", source, prompts={"a": "who wrote"}, default_prompt_name="a")
    edit(
        folder / "sentence_bert_config.json",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    logits = TorchScorer(folder, max_length=60).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder), atol=1e-4)
    assert np.abs(logits - TorchScorer(source, max_length=60).score(PAIRS)).max() > 0.01


def test_a_template_counts_only_where_sentence_transformers_uses_it(tmp_path: Path) -> None:
    """modules.json without the modality "message": pairs of texts, as versions before it scored them."""
    folder = saved(tmp_path / "model", with_template(tmp_path / "source", PLAIN))
    module = json.loads((folder / "sentence_bert_config.json").read_text())
    del module["modality_config"]["message"]
    (folder / "sentence_bert_config.json").write_text(json.dumps(module))
    logits = TorchScorer(folder, max_length=60).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder), atol=1e-4)


def test_no_text_ends_its_part_of_a_template(tmp_path: Path) -> None:
    folder = with_template(tmp_path, TEMPLATES["tokens"])
    encoder = read_folder(folder, max_length=60).encoder
    (row,) = encoder.encode([("who [SEP] wrote", "[CLS] dune")])
    assert row.ids.tolist().count(3) == 2
    assert row.ids.tolist().count(2) == 1


def test_a_template_without_jinja_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers installs without it; a folder whose template is optional would be read with another one."""
    folder = with_template(tmp_path, PLAIN)
    from transformers.utils import chat_template_utils

    def no_jinja(_: str) -> None:
        raise ImportError("apply_chat_template requires jinja2 to be installed")

    monkeypatch.setattr(chat_template_utils, "_compile_jinja_template", no_jinja)
    with pytest.raises(MissingEngine, match="transformers and jinja2"):
        read_folder(folder, max_length=60)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    folder = with_template(tmp_path, PLAIN)
    (folder / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(ModelError, match="chat_template.jinja cannot be read"):
        read_folder(folder, max_length=60)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            "does not show messages of the roles",
        ),
        ("{{ raise_exception('no') }}", "does not show messages of the roles query and document"),
        ("{{ messages[0].content }}", "does not show messages of the roles query and document"),
        (
            "{{ messages[0].content | upper }} {{ messages[1].content }}",
            "does more with a query and a document",
        ),
        (
            "{{ messages[0].content }}{{ messages[1].content }}{{ messages[1].content }}",
            "does more with a query",
        ),
        ("{{ messages[0].content[:3] }}{{ messages[1].content }}", "does more with a query"),
    ],
)
def test_templates_that_are_not_for_pairs_are_refused(tmp_path: Path, template: str, said: str) -> None:
    folder = with_template(tmp_path, template)
    with pytest.raises(ModelError, match=said):
        read_folder(folder, max_length=60)
    with pytest.raises(ModelError, match=said):
        TorchScorer(folder, max_length=60)
