"""tokenizer_config.json beside tokenizer.json: what transformers makes of the two, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from rerank_core.errors import ModelError
from rerank_core.inference.encoding import PairEncoder
from rerank_core.inference.tokenizer_files import read_tokenizer
from tests.rerank_core.inference.test_encoding import bytelevel, metaspace, wordpiece

NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
BYTE_NAMES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
BYTE_NAMES |= {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
TEXTS = [
    "who wrote dune",
    "WHO Wrote Dune",
    "é É e\u0301",
    "sand砂 moves",
    "new new_token [NEW] frank",
    "[SEP] [MASK] <s> dune",
    " the  novel ",
    "",
]
PAIRS = [(a, b) for a in TEXTS for b in TEXTS]


def write(
    folder: Path, tokenizer: Tokenizer, settings: dict[str, Any], *, model_type: str = "bert", **files: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    written = {"config": {"model_type": model_type, "vocab_size": 99}, "tokenizer_config": settings, **files}
    for name, contents in written.items():
        (folder / f"{name}.json").write_text(json.dumps(contents))
    return folder


def read(folder: Path) -> Any:
    return read_tokenizer(folder, json.loads((folder / "config.json").read_text()))


def check_against_transformers(folder: Path, *, max_length: int = 9) -> Any:
    """The rows of every pair, whole and cut, are those of AutoTokenizer."""
    transformers = pytest.importorskip("transformers")
    files, peer = read(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert files.truncation_side == peer.truncation_side
    for length in (max_length, 200):
        encoder = PairEncoder(files.tokenizer, max_length=length, side=files.truncation_side)
        encoder._special_ids = encoder._special_ids._replace(ids=np.empty(0, np.int32))  # text stays as it is
        expected = peer([list(pair) for pair in PAIRS], truncation=True, max_length=length)
        rows = encoder.encode(PAIRS)
        assert [row.ids.tolist() for row in rows] == expected["input_ids"]
        if files.typed and "token_type_ids" in expected:
            assert [row.types.tolist() for row in rows] == expected["token_type_ids"]
    assert files.typed == ("token_type_ids" in peer.model_input_names)
    return files


SPECIAL = {"content": "[NEW]", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
BERT: dict[str, tuple[dict[str, Any], bool]] = {
    # settings, whether they change what tokenizer.json says
    "as saved": ({"do_lower_case": True}, False),
    "lower case by default": ({}, False),
    "cased": ({"do_lower_case": False}, True),
    "accents stay": ({"strip_accents": False}, True),
    "accents go": ({"do_lower_case": False, "strip_accents": True}, True),
    "Chinese characters stay together": ({"tokenize_chinese_chars": False}, True),
    "cut on the left": ({"truncation_side": "left"}, False),
    "padded on the left": ({"padding_side": "left"}, False),
    "no types": ({"model_input_names": ["input_ids", "attention_mask"]}, False),
    "a maximum": ({"model_max_length": 5}, False),
    "special tokens in texts are text": ({"split_special_tokens": True}, True),
    "a special token more": ({"additional_special_tokens": ["[NEW]"]}, True),
    "a mask token": ({"mask_token": "[MASK]"}, False),
    "added tokens": (
        {
            "added_tokens_decoder": {
                **{str(i): {**SPECIAL, "content": t, "special": True} for i, t in enumerate(NAMES.values())},
                "67": {**SPECIAL, "content": "[MASK]", "special": True},
                "68": {**SPECIAL, "special": True},
                "69": {**SPECIAL, "content": "new_token", "normalized": True, "special": False},
            }
        },
        True,
    ),
}


@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", None])
@pytest.mark.parametrize("case", BERT)
def test_berts_settings_are_applied(tmp_path: Path, case: str, kind: str | None) -> None:
    settings, changes = BERT[case]
    files = check_against_transformers(
        write(tmp_path, masked(), NAMES | settings | ({"tokenizer_class": kind} if kind else {}))
    )
    assert bool(files.changes) == changes


@pytest.mark.parametrize("case", BERT)
def test_of_no_class_tokenizer_json_counts(tmp_path: Path, case: str) -> None:
    settings = NAMES | BERT[case][0] | {"tokenizer_class": "PreTrainedTokenizerFast"}
    check_against_transformers(write(tmp_path, wordpiece(), settings))


def test_a_normaliser_of_another_kind_becomes_berts(tmp_path: Path) -> None:
    tokenizer = masked()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for model_type, kind in (("bert", "BertTokenizerFast"), ("electra", None)):
        settings = NAMES | ({"tokenizer_class": kind} if kind else {})
        files = check_against_transformers(write(tmp_path, tokenizer, settings, model_type=model_type))
        assert len(files.changes) == 2
    as_it_is = write(
        tmp_path, tokenizer, NAMES | {"tokenizer_class": "BertTokenizer"}, model_type="modernbert"
    )
    assert check_against_transformers(as_it_is).changes == []


def test_a_pair_gets_berts_special_tokens(tmp_path: Path) -> None:
    tokenizer = masked()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[SEP] $A", pair="[SEP] $A $B", special_tokens=[("[SEP]", 3)]
    )
    settings = NAMES | {"sep_token": "[MASK]", "tokenizer_class": "BertTokenizer"}
    assert check_against_transformers(write(tmp_path, tokenizer, settings)).changes


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (bytelevel, "BertTokenizer", "is BertTokenizer, which is a WordPiece, but tokenizer.json is a BPE"),
        (
            wordpiece,
            "RobertaTokenizer",
            "is RobertaTokenizer, which is a BPE, but tokenizer.json is a WordPiece",
        ),
        (bytelevel, "XLMRobertaTokenizerFast", "which is a Unigram, but tokenizer.json is a BPE"),
    ],
)
def test_a_class_of_another_kind_is_refused(
    tmp_path: Path, make: Callable[[], Tokenizer], kind: str, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        read(write(tmp_path, make(), {"tokenizer_class": kind}))


def test_files_of_older_versions_add_tokens(tmp_path: Path) -> None:
    special = {"additional_special_tokens": ["[NEW]"], "mask_token": "[MASK]"}
    folder = write(
        tmp_path,
        wordpiece(),
        NAMES | {"tokenizer_class": "BertTokenizer"},
        special_tokens_map=special,
        added_tokens={"[NEW]": 75, "new_token": 76, "[SEP]": 3},
    )
    assert check_against_transformers(folder).changes


def masked() -> Tokenizer:
    """As BERT's classes have it: with [MASK]."""
    tokenizer = wordpiece()
    tokenizer.add_special_tokens(["[MASK]"])
    return tokenizer


def lower(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def prefixed() -> Tokenizer:
    tokenizer = bytelevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


@pytest.mark.parametrize(
    ("make", "kind", "settings", "refused"),
    [
        (bytelevel, "RobertaTokenizer", {}, ""),
        (bytelevel, "RobertaTokenizer", {"add_prefix_space": False, "truncation_side": "left"}, ""),
        (bytelevel, "RobertaTokenizer", {"add_prefix_space": True}, "add_prefix_space .* is true, but"),
        (prefixed, "RobertaTokenizer", {"add_prefix_space": True}, ""),
        (prefixed, "RobertaTokenizerFast", {}, "add_prefix_space .* is false by default"),
        (prefixed, "PreTrainedTokenizerFast", {"add_prefix_space": False}, ""),
        (metaspace, "XLMRobertaTokenizer", {}, ""),
        (metaspace, "XLMRobertaTokenizer", {"do_lower_case": True}, ""),  # not a setting of this class
        (metaspace, "XLMRobertaTokenizer", {"add_prefix_space": False}, "add_prefix_space .* is false, but"),
        (metaspace, "DebertaV2Tokenizer", {"do_lower_case": True}, "do_lower_case .* is true, but"),
        (lambda: lower(metaspace()), "DebertaV2Tokenizer", {}, "do_lower_case .* is false by default, but"),
        (metaspace, "DebertaV2Tokenizer", {"split_by_punct": True}, "split_by_punct .* is true, but"),
    ],
)
def test_other_classes_agree_or_are_refused(
    tmp_path: Path, make: Callable[[], Tokenizer], kind: str, settings: dict[str, Any], refused: str
) -> None:
    model_type = "roberta" if "Roberta" in kind else "deberta-v2"
    folder = write(tmp_path, make(), BYTE_NAMES | settings | {"tokenizer_class": kind}, model_type=model_type)
    if refused:
        with pytest.raises(ModelError, match=f"{refused}.*save both anew with transformers"):
            read(folder)
    else:
        check_against_transformers(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"truncation_side": "up"}, "truncation_side in .* is 'up'; it is left or right"),
        ({"added_tokens_decoder": {"5": "[NEW]"}}, "the added tokens in .* are not tokens"),
        ({"added_tokens_decoder": ["[NEW]"]}, "the added tokens in .* are not tokens"),
        (
            {"added_tokens_decoder": {"99": SPECIAL}},
            "gives \\[NEW\\] the id 99, by tokenizer.json it gets 67",
        ),
    ],
)
def test_broken_settings_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read(write(tmp_path, wordpiece(), settings))
