"""A model that looks words up: real tokenizer.json and ONNX files, no torch, and every answer known."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rerank_core.errors import ModelError
from rerank_core.features.ner import onnx as module
from rerank_core.features.ner.onnx import OnnxRecogniser
from schemas.records import Mention

MakeModel = Callable[..., Path]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-DATE"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
KNOWN = {
    "Frank": "B-PER",
    "Her": "I-PER",
    "##bert": "O",
    "Tacoma": "B-LOC",
    "Bad": "B-LOC",
    "Bonn": "I-LOC",
    "NASA": "B-ORG",
    "1965": "I-DATE",
    "lives": "O",
    "in": "O",
    ".": "O",
    "Zü": "B-LOC",
    "##rich": "O",
    "broken": "O",
    "loud": "O",
}
TEXT = "Frank Herbert lives in Bad Bonn. Tacoma, Zürich 1965"
FOUND = [("Frank Herbert", "PER"), ("Bad Bonn", "LOC"), ("Tacoma", "LOC"), ("Zürich", "LOC")]


def write_tokenizer(path: Path, *, lower: bool) -> dict[str, int]:
    known = [word.lower() if lower else word for word in KNOWN]
    vocab = {token: i for i, token in enumerate([*SPECIALS, *known])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    tokenizer.add_special_tokens(SPECIALS)
    # As real folders have it: settings of a training run, which must not be taken over.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(path))
    return vocab


def lookup(
    vocab: dict[str, int],
    *,
    labels: int = len(LABELS),
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    integer: int = TensorProto.INT64,
    output: int = TensorProto.FLOAT,
    batch: int | str = "batch",
    pooled: bool = False,
    scale: float = 1.0,
    broken: float = np.nan,
) -> onnx.ModelProto:
    """The logits of a token are those of its word."""
    table = np.zeros((len(vocab), len(LABELS)), np.float32)
    for word, label in KNOWN.items():
        table[vocab.get(word, vocab.get(word.lower(), 0)), LABELS.index(label)] = 1
    table[vocab["broken"]] = broken
    table[vocab["loud"], 0] = 1000  # in its company, 8 bits leave nothing of the others
    head = np.eye(len(LABELS), labels, dtype=np.float32) * 9 * scale
    held = [numpy_helper.from_array(value, name) for name, value in {"table": table, "head": head}.items()]
    held.append(numpy_helper.from_array(np.array([2], np.int64), "axis"))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked"]),
        helper.make_node("Cast", [inputs[:2][-1]], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["mask_3"]),
        helper.make_node("Mul", ["looked", "mask_3"], ["masked"]),
        helper.make_node("MatMul", ["masked", "head"], ["wide"]),
        *([helper.make_node("ReduceMax", ["wide"], ["pool"], axes=[1], keepdims=0)] if pooled else []),
        helper.make_node("Cast", ["pool" if pooled else "wide"], ["logits"], to=output),
    ]
    shape = [batch, labels] if pooled else [batch, "sequence", labels]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(name, integer, [batch, "sequence"]) for name in inputs],
        [helper.make_tensor_value_info("logits", output, shape)],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """`make_model(name, config=..., external=..., lower=..., **lookup's)` -> the model's folder."""

    def make(
        name: str = "model",
        *,
        config: dict[str, Any] | None = None,
        external: str = "",
        lower: bool = False,
        **options: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "onnx").mkdir(parents=True)
        vocab = write_tokenizer(folder / "tokenizer.json", lower=lower)
        (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
        described = {"id2label": {str(i): label for i, label in enumerate(LABELS)}, **(config or {})}
        (folder / "config.json").write_text(json.dumps(described))
        path = folder / "onnx/model.onnx"
        model = lookup(vocab, **options)
        if external:
            onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=100)
        else:
            onnx.save(model, path)
        return folder

    return make


def read(recogniser: OnnxRecogniser, text: str) -> list[tuple[str, str]]:
    (mentions,) = recogniser.recognise([("", text)])
    assert all(text[m.start : m.end] == m.text for m in mentions)
    return [(m.text, m.label) for m in mentions]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"integer": TensorProto.INT32},
        {"inputs": ("input_ids", "attention_mask", "token_type_ids")},
        {"output": TensorProto.FLOAT16},
        {"external": "weights.bin"},
    ],
)
def test_known_words_are_found(make_model: MakeModel, options: Any) -> None:
    assert read(OnnxRecogniser(make_model(**options)), TEXT) == FOUND


def test_an_uncased_model(make_model: MakeModel) -> None:
    recogniser = OnnxRecogniser(make_model(lower=True))
    assert read(recogniser, TEXT) == FOUND
    assert read(recogniser, TEXT.lower()) == [(text.lower(), label) for text, label in FOUND]


def test_places_in_the_text(make_model: MakeModel) -> None:
    (found,) = OnnxRecogniser(make_model()).recognise([("Frank", "\U0001f600 in  Tacoma.")])
    assert found == (Mention("Tacoma", "LOC", 6, 12),)


@pytest.mark.parametrize("max_tokens", [1, 12, 4096])
def test_the_same_alone_and_in_any_batch(make_model: MakeModel, max_tokens: int) -> None:
    recogniser = OnnxRecogniser(make_model(), max_tokens=max_tokens)
    passages = [("", text) for text in (TEXT, "", "in Tacoma", "  ", "NASA " * 30, TEXT, "砂 \ud800 Bonn")]
    together = recogniser.recognise(passages)
    assert together == [recogniser.recognise([passage])[0] for passage in passages]
    assert recogniser.recognise(passages[::-1]) == together[::-1]
    assert [len(mentions) for mentions in together] == [4, 0, 1, 0, 30, 4, 1]
    assert recogniser.recognise([]) == []


def test_a_dynamically_quantised_model_reads_each_row_alone(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(broken=0)
    quantize_dynamic(folder / "onnx/model.onnx", folder / "int8.onnx", op_types_to_quantize=["MatMul"])
    recogniser = OnnxRecogniser(folder, onnx_file="int8.onnx", max_tokens=4096)
    recogniser.load()
    sizes: list[int] = []
    run = module._Engine._run
    monkeypatch.setattr(module._Engine, "_run", lambda self, rows: sizes.append(len(rows)) or run(self, rows))
    passages = [("", "Frank lives in Tacoma"), ("", "loud in Bonn")]
    assert [len(mentions) for mentions in recogniser.recognise(passages)] == [2, 0]
    assert sizes == [1, 1]
    # The trap: in one input, the loud word's scale drowns the others.
    assert read(recogniser, "loud Frank lives in Tacoma") == []


def test_long_texts_are_read_in_windows(make_model: MakeModel) -> None:
    folder = make_model(config={"max_position_embeddings": 16})
    text = "Tacoma in . " * 100 + "Frank Herbert"
    expected = [("Tacoma", "LOC")] * 100 + [("Frank Herbert", "PER")]
    assert read(OnnxRecogniser(folder), text) == expected
    assert read(OnnxRecogniser(folder, max_length=5), text) == expected
    assert OnnxRecogniser(folder).fingerprint == OnnxRecogniser(folder, max_length=16).fingerprint


def test_a_passage_whose_logits_are_nan_is_named(make_model: MakeModel) -> None:
    recogniser = OnnxRecogniser(make_model())
    with pytest.raises(ModelError, match=r"NaN or infinite for the passage 'this is broken'"):
        recogniser.recognise([("", "in Tacoma"), ("", "this is broken")])


def test_threads_may_share_a_recogniser(make_model: MakeModel) -> None:
    recogniser = OnnxRecogniser(make_model(), max_tokens=20, threads=2)
    passages = [("", TEXT[:n]) for n in range(len(TEXT))]
    expected = recogniser.recognise(passages)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            found == expected for found in pool.map(lambda _: recogniser.recognise(passages), range(8))
        )


# Pickling and identity


def test_it_pickles_without_its_model(make_model: MakeModel) -> None:
    recogniser = OnnxRecogniser(make_model())
    assert read(recogniser, TEXT) == FOUND
    raw = pickle.dumps(recogniser)
    assert len(raw) < 600
    code = (
        "import pickle, sys; r = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "print(r.fingerprint, *(m.label for m in r.recognise([('', 'Frank in Tacoma')])[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, raw.hex()], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.split() == [recogniser.fingerprint, "PER", "LOC"]


def test_a_process_loads_a_model_once_and_only_when_it_reads(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    engine = module.open_session
    monkeypatch.setattr(module, "open_session", lambda path: opened.append(path) or engine(path))
    recogniser = OnnxRecogniser(make_model())
    assert not opened
    copies = [pickle.loads(pickle.dumps(recogniser)) for _ in range(3)]  # noqa: S301  our own
    assert all(read(copy, TEXT) == FOUND for copy in [recogniser, *copies])
    assert len(opened) == 1


def test_another_model_in_the_folder_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    recogniser = OnnxRecogniser(folder)
    shutil.copy(make_model("other", scale=2) / "onnx/model.onnx", folder / "onnx/model.onnx")
    with pytest.raises(ModelError, match=r"differ from those that this recogniser was made with"):
        recogniser.recognise([("", TEXT)])
    assert read(OnnxRecogniser(folder), TEXT) == FOUND


def test_the_fingerprint_names_what_decides_a_mention(make_model: MakeModel) -> None:
    folder = make_model()
    same = shutil.copytree(folder, folder.with_name("same"))
    described = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps(described, indent=2))
    first = OnnxRecogniser(folder).fingerprint
    assert len(bytes.fromhex(first)) == 16
    assert OnnxRecogniser(same, max_tokens=64, threads=1).fingerprint == first
    others = [OnnxRecogniser(folder, max_length=100), OnnxRecogniser(make_model("other", scale=2))]
    described["id2label"]["1"] = "B-ORG"
    (same / "config.json").write_text(json.dumps(described))
    others.append(OnnxRecogniser(same))
    external = [OnnxRecogniser(make_model(f"e{scale}", external="w.bin", scale=scale)) for scale in (1, 2)]
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    others.append(OnnxRecogniser(folder))
    assert len({first, *(other.fingerprint for other in others + external)}) == 7


# Folders that cannot be used


def write(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def remove(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def several(folder: Path) -> None:
    shutil.move(folder / "onnx/model.onnx", folder / "a.onnx")
    shutil.copy(folder / "a.onnx", folder / "b.onnx")


def two_outputs(folder: Path) -> None:
    model = onnx.load(folder / "onnx/model.onnx")
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(helper.make_node("Neg", ["scores"], ["hidden"]))
    del model.graph.output[:]
    for name in ("hidden", "scores"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(model, folder / "onnx/model.onnx")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (two_outputs, r"has the outputs hidden, scores, none of which is called logits"),
        (shutil.rmtree, r"no model folder at .*an ONNX model is a local folder, not a name on a hub"),
        (remove("onnx/model.onnx"), r"no ONNX file in .*export the model to .*model.onnx"),
        (several, r"several ONNX files; set onnx_file to one of: a.onnx, b.onnx"),
        (remove("tokenizer.json"), r"no .*tokenizer.json; .*save_pretrained"),
        (remove("config.json"), r"has no labels"),
        (write("config.json", "{"), r"config.json is not readable JSON"),
        (
            write("config.json", '{"id2label": {"0": "LABEL_0"}}'),
            r"other names: LABEL_0\. Take a named-entity",
        ),
        (write("onnx/model.onnx", "no model"), r"model.onnx \(8 bytes\) cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_refused(make_model: MakeModel, damage: Callable[[Path], Any], said: str) -> None:
    folder = make_model()
    damage(folder)
    with pytest.raises(ModelError, match=said):
        OnnxRecogniser(folder).load()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": 3}, r"has 3 labels, id2label of its config.json 7; copy both from one model"),
        ({"pooled": True}, r"output of shape \[2, 7\], not one row of logits a token"),
        ({"batch": 1}, r"export it with dynamic batch and sequence axes"),
        ({"inputs": ("input_ids",)}, r"has the inputs input_ids: tensor\(int64\); needed are"),
        (
            {"inputs": ("input_ids", "attention_mask", "bbox")},
            r"has the inputs .*bbox: tensor\(int64\); needed",
        ),
    ],
)
def test_a_foreign_model_is_refused(make_model: MakeModel, options: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        OnnxRecogniser(make_model(**options)).load()


def test_a_tokenizer_of_another_model_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["foreign"] = 30_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ModelError, match=r"the model whose tokenizer.json this is \(its ids go up to 30000\)"
    ):
        OnnxRecogniser(folder).load()


@pytest.mark.parametrize("options", [{"max_length": 0}, {"max_tokens": 0}, {"threads": -1}])
def test_senseless_settings(make_model: MakeModel, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        OnnxRecogniser(make_model(), **options)
