"""What a folder says besides its weights: each row gets the logit that the model's own library gives it alone."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.scoring.backends.onnx import OnnxScorer
from rerank_core.scoring.backends.torch import TorchScorer
from tests.rerank_core.inference.test_encoding import wordpiece
from tests.support.tiny_models import fast_tokenizer
from tests.support.tiny_onnx import write_transformer
from tests.support.tiny_rerankers import PAIRS, edit, of_the_library, saved, write

CASED = [*PAIRS, ("Who wrote Dune", "DUNE was written by Frank Herbert and it moves")]


# Padding: the tokenizer fills rows, the model's configuration decides positions or the last token


@pytest.mark.parametrize("unpadded", [True, False])
@pytest.mark.parametrize("pad", [0, 1, 5])
@pytest.mark.parametrize("name", ["Roberta", "XLMRoberta", "Camembert", "Bert", "Electra"])
def test_positions_follow_the_padding_token_of_the_configuration(
    tmp_path: Path, name: str, pad: int, unpadded: bool
) -> None:
    folder = write(tmp_path, name, pad_token_id=pad)
    logits = TorchScorer(folder, max_length=60, unpadded=unpadded).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder), atol=1e-4)


DECODERS = {
    "Qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "Llama": {"num_key_value_heads": 2},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 130},
    "Mistral": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9},
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [0, 3, -1, None])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoders_last_token_follows_the_padding_token_of_the_configuration(
    tmp_path: Path, name: str, pad: int | None, side: str
) -> None:
    """3 ends every row; without a token in the configuration the last one counts."""
    config = dict(DECODERS[name], pad_token_id=pad, eos_token_id=3, bos_token_id=2)
    folder = write(tmp_path, name, **config)
    edit(folder / "tokenizer_config.json", padding_side=side)
    scorer = TorchScorer(folder, max_length=60)
    expected = of_the_library(folder)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-4)
    np.testing.assert_allclose([scorer.score([pair])[0] for pair in PAIRS], expected, atol=1e-4)


@pytest.mark.parametrize("pad", ["[SEP]", "[BEYOND]", None])
def test_a_decoder_with_no_padding_token_to_spare(tmp_path: Path, pad: str | None) -> None:
    """The tokenizer's padding ends every row, or the model lacks it, or there is none.

    Rows are filled with a token of the model's that is in no row.
    """
    folder = write(tmp_path, "Qwen3", **DECODERS["Qwen3"], pad_token_id=None)
    edit(folder / "tokenizer_config.json", pad_token=pad)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder
    )  # sentence-transformers pads a single pair too
    with torch.no_grad():
        expected = [model(**tokenizer([pair], return_tensors="pt")).logits.item() for pair in PAIRS]
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)


# Two labels


@pytest.mark.parametrize("names", [("entailment", "not_entailment"), ("no", "yes"), ("LABEL_0", "LABEL_1")])
def test_the_logit_is_the_relevant_labels(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = write(tmp_path, "Bert", typed=True, num_labels=2, id2label=dict(enumerate(names)))
    logits = of_the_library(folder)
    relevant = 0 if names[0] == "entailment" else 1
    expected = logits[:, relevant] - logits[:, 1 - relevant]
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)


# A folder of sentence-transformers


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models") / "bert", "Bert", typed=True)


PROMPTS = {"search": "novel written by ", "none": ""}


@pytest.mark.parametrize("name", ["search", "none", None])
def test_the_default_prompt_is_put_before_the_query(tmp_path: Path, bert: Path, name: str | None) -> None:
    folder = saved(tmp_path / "model", bert, prompts=PROMPTS, default_prompt_name=name)
    scorer = TorchScorer(folder, max_length=12)
    expected = of_the_library(folder, max_length=12)
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-4)
    plain = TorchScorer(bert, max_length=12)
    assert (np.abs(plain.score(PAIRS) - expected).max() > 0.1) == (name == "search")
    assert scorer.overflow([("who", "dune")]) == plain.overflow(
        [(PROMPTS.get(name or "", "") + "who", "dune")]
    )


def test_prompts_count_where_sentence_transformers_reads_them(tmp_path: Path, bert: Path) -> None:
    """Not without modules.json, and not in the folder of another kind of model."""
    folder = saved(tmp_path / "model", bert, prompts=PROMPTS, default_prompt_name="search")
    expected = TorchScorer(bert, max_length=60).score(PAIRS)
    edit(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")
    np.testing.assert_allclose(of_the_library(folder), expected, atol=1e-4)
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)
    (folder / "modules.json").unlink()
    edit(folder / "config_sentence_transformers.json", model_type="CrossEncoder")
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)


def test_lower_case(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.normalizer = None
    bert = write(tmp_path / "bert", "Bert", tokenizer=fast_tokenizer(tokenizer, typed=True))
    folder = saved(tmp_path / "model", bert)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    pairs = [("WHO Wrote Dune", "DUNE was Written")]
    logits = TorchScorer(folder, max_length=60).score(pairs)
    np.testing.assert_allclose(logits, of_the_library(folder, pairs), atol=1e-4)
    assert abs(logits[0] - TorchScorer(bert, max_length=60).score(pairs)[0]) > 0.01


@pytest.mark.parametrize("name", ["Bert", "Qwen3"])
def test_texts_are_cut_on_the_side_of_the_tokenizer(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, name, typed=name == "Bert", pad_token_id=0, **DECODERS.get(name, {}))
    edit(folder / "tokenizer_config.json", truncation_side="left")
    logits = TorchScorer(folder, max_length=12).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder, max_length=12), atol=1e-4)


def test_inputs_are_those_of_the_tokenizer(tmp_path: Path, bert: Path) -> None:
    folder = saved(tmp_path / "model", bert)
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    logits = TorchScorer(folder, max_length=60).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder), atol=1e-4)
    assert np.abs(logits - TorchScorer(bert, max_length=60).score(PAIRS)).max() > 0.01


def test_the_fingerprint_covers_the_settings(tmp_path: Path, bert: Path) -> None:
    prints = {TorchScorer(saved(tmp_path / "plain", bert), max_length=60).fingerprint}
    for number, prompt in enumerate(("novel ", "the novel ")):
        folder = saved(tmp_path / str(number), bert, prompts={"a": prompt}, default_prompt_name="a")
        prints.add(TorchScorer(folder, max_length=60).fingerprint)
    assert len(prints) == 3


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "prompt": (
        "config_sentence_transformers.json",
        {"prompts": {"a": "b"}, "default_prompt_name": "c"},
        "default_prompt_name in .*config_sentence_transformers.json is 'c', which is not one of its prompts: a",
    ),
    "special": (
        "config_sentence_transformers.json",
        {"prompts": {"a": "[SEP] "}, "default_prompt_name": "a"},
        "default prompt in .*config_sentence_transformers.json spells a special token",
    ),
    "activation": (
        "config_sentence_transformers.json",
        {"activation_fn": "torch.nn.modules.activation.GELU"},
        "activation_fn in .*config_sentence_transformers.json is torch.nn.modules.activation.GELU",
    ),
    "old activation": (
        "config.json",
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Softmin"},
        "activation_fn in .*config.json is torch.nn.modules.activation.Softmin",
    ),
    "tokenizer": (
        "sentence_bert_config.json",
        {"processor_kwargs": {"add_prefix_space": True}},
        "sentence_bert_config.json sets processor_kwargs.add_prefix_space, which is not supported",
    ),
    "processing": (
        "sentence_bert_config.json",
        {"processing_kwargs": {"text": {"truncation": "only_second", "max_length": 9}}},
        "sentence_bert_config.json sets processing_kwargs.text.truncation, which is not supported",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_not_supported_are_refused(tmp_path: Path, bert: Path, case: str) -> None:
    name, changes, said = REFUSED[case]
    folder = saved(tmp_path / "model", bert)
    edit(folder / name, **changes)
    with pytest.raises(ModelError, match=said):
        read_folder(folder, max_length=60)
    with pytest.raises(ModelError, match=said):
        TorchScorer(folder, max_length=60)


def test_settings_that_change_no_logit_are_taken(tmp_path: Path, bert: Path) -> None:
    folder = saved(tmp_path / "model", bert, activation_fn=torch.nn.Tanh())
    text = {"truncation": True, "padding": True, "max_length": 9}
    edit(
        folder / "sentence_bert_config.json",
        processor_kwargs={"model_max_length": 20},
        processing_kwargs={"text": text},
    )
    expected = TorchScorer(bert, max_length=60).score(PAIRS)
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (
            ["Transformer", "Pooling"],
            "has the modules Transformer, Pooling, .*use scoring.backend = 'bi_encoder'",
        ),
        (["Transformer", "LogitScore"], "use scoring.backend = 'causal_lm'"),
        (["Transformer", "Dense"], "has the modules Transformer, Dense, .*use another model"),
    ],
)
def test_other_modules_are_refused(tmp_path: Path, bert: Path, kinds: list[str], said: str) -> None:
    folder = saved(tmp_path / "model", bert)
    modules = [
        {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.{k}"}
        for i, k in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=said):
        read_folder(folder, max_length=60)


# Files of any JSON

FIELDS = {
    "config.json": "vocab_size pad_token_id max_position_embeddings model_type id2label label2id tokenizer_class "
    "sentence_transformers",
    "config_sentence_transformers.json": "prompts default_prompt_name activation_fn",
    "sentence_bert_config.json": "do_lower_case modality_config processing_kwargs processor_kwargs config_args",
    "tokenizer_config.json": "tokenizer_class do_lower_case strip_accents model_input_names truncation_side "
    "added_tokens_decoder extra_special_tokens cls_token pad_token chat_template",
}
VALUES: list[Any] = [None, True, -1, 1.5, "x", "", [], ["x"], [{"a": 1}], {}, {"x": 1}, {"content": "x"}]


def test_a_field_of_another_type_is_read_or_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", write(tmp_path / "source", "Roberta", pad_token_id=0))
    refused = 0
    for name, fields in FIELDS.items():
        written = (folder / name).read_text()
        for field, value in itertools.product(fields.split(), VALUES):
            edit(folder / name, **{field: value})
            try:
                read_folder(folder, max_length=60)
            except ModelError as error:
                refused += str(folder) in str(error)
            (folder / name).write_text(written)
    assert refused > 50


# Ids beyond the vocabulary


def test_added_tokens_beyond_the_vocabulary_are_never_used(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["unused"])
    tokenizer.add_special_tokens(["[UNUSED]"])
    folder = write(
        tmp_path, "Bert", tokenizer=fast_tokenizer(tokenizer, typed=True), vocab_size=size, pad_token_id=0
    )
    scorer = TorchScorer(folder, max_length=60)
    np.testing.assert_allclose(scorer.score(PAIRS), of_the_library(folder), atol=1e-4)
    spelled = scorer.score([("unused dune", "[UNUSED] who")])  # they become [UNK], as special tokens do
    np.testing.assert_allclose(spelled, scorer.score([("砂 dune", "砂 who")]), atol=1e-5)
    assert read_folder(folder, max_length=60).last_id == size - 1


def test_words_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    size = wordpiece().get_vocab_size()
    folder = write(tmp_path, "Bert", typed=True, vocab_size=size - 1, pad_token_id=0)
    for read in (read_folder, TorchScorer):
        with pytest.raises(ModelError, match=f"has ids up to {size - 1}, its model has {size - 1} of them"):
            read(folder, max_length=60)  # type: ignore[operator]


# Adapters


def adapter(folder: Path, base: Path, *, name: str = "") -> Path:
    peft = pytest.importorskip("peft")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    model = peft.get_peft_model(
        model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    )
    torch.manual_seed(3)
    for part, parameter in model.named_parameters():
        if "lora" in part:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    if name:
        edit(folder / "adapter_config.json", base_model_name_or_path=name)
    return folder


def test_the_fingerprint_of_an_adapter_covers_its_base(tmp_path: Path) -> None:
    config = {"typed": True, "num_labels": 2, "id2label": {0: "relevant", 1: "irrelevant"}}
    base = write(tmp_path / "base", "Bert", **config)
    folder = adapter(tmp_path / "adapter", base)
    scorer = TorchScorer(folder, max_length=60)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer([pair], return_tensors="pt")).logits[0].tolist() for pair in PAIRS]
    np.testing.assert_allclose(scorer.score(PAIRS), [one - other for one, other in logits], atol=1e-4)
    other = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    torch.nn.init.normal_(other.bert.embeddings.word_embeddings.weight)
    other.save_pretrained(base)
    assert TorchScorer(folder, max_length=60).fingerprint != scorer.fingerprint


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", "Bert", typed=True)
    folder = adapter(tmp_path / "adapter", base, name=str(tmp_path / "no" / "such"))
    with pytest.raises(ModelError, match="no model at .*such, which .*adapter_config.json names as its base"):
        TorchScorer(folder, max_length=60)


def test_an_adapter_needs_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path / "adapter", write(tmp_path / "base", "Bert", typed=True))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingEngine, match="has an adapter, which needs peft"):
        TorchScorer(folder, max_length=60)


# Every engine reads the same


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": (
        "config_sentence_transformers.json",
        {"prompts": {"a": "novel by "}, "default_prompt_name": "a"},
    ),
    "left": ("tokenizer_config.json", {"truncation_side": "left"}),
    "no types": ("tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]}),
    "cased": ("tokenizer_config.json", {"do_lower_case": False}),
    "labels": ("config.json", {"id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": 0, "no": 1}}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_every_engine_reads_the_same(tmp_path: Path, case: str) -> None:
    pytest.importorskip("openvino")
    from rerank_core.scoring.backends.openvino import OpenVinoScorer

    source = write_transformer(tmp_path / "source", labels=2)
    edit(source / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    folder = saved(tmp_path / "model", source)
    shutil.copytree(source / "onnx", folder / "onnx")
    plain = OnnxScorer(folder, max_length=12)
    file, changes = SETTINGS[case]
    edit(folder / file, **changes)
    logits = of_the_library(folder, CASED, max_length=12)
    relevant = 0 if case == "labels" else 1
    expected = logits[:, relevant] - logits[:, 1 - relevant]
    assert np.abs(plain.score(CASED) - expected).max() > 0.01
    for make in (OnnxScorer, OpenVinoScorer, TorchScorer):
        scorer = make(folder, max_length=12)  # type: ignore[operator]
        np.testing.assert_allclose(scorer.score(CASED), expected, atol=1e-3)
    assert OnnxScorer(folder, max_length=12).fingerprint != plain.fingerprint
