from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

import rerank_core
from rerank_core.errors import ModelError
from rerank_core.inference.encoding import load_tokenizer
from rerank_core.scoring.backends.onnx import OnnxScorer
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import MeasuresOverflow

MakeModel = Callable[..., Path]
QUERY = "who wrote the novel dune"
PAIRS = [
    (QUERY, "dune was written by frank herbert"),
    (QUERY, "sand moves"),
    (QUERY, ""),
    ("sand", "the sand moves by the dune, " * 6),
    (QUERY, "the novel dune"),
    ("who", "é ü 砂"),
]


@pytest.mark.parametrize(
    "options", [{}, {"token_types": True}, {"labels": 2}, {"integer": TensorProto.INT32}]
)
@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_a_row_alone_scores_as_it_does_in_a_batch(
    make_model: MakeModel, options: Any, max_tokens: int
) -> None:
    scorer = OnnxScorer(make_model(**options), max_tokens=max_tokens)
    together = scorer.score(PAIRS)
    assert together.dtype == np.float32
    assert together.shape == (len(PAIRS),)
    alone = np.concatenate([scorer.score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(set(together.tolist())) == len(PAIRS)
    np.testing.assert_array_equal(scorer.score(PAIRS[::-1]), together[::-1])


def test_the_logit_is_the_models(make_model: MakeModel) -> None:
    """By hand, with the numbers of the fixture: the mean of the tokens' embeddings times the head."""
    folder = make_model()
    random = np.random.default_rng(0)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words, _, head = (random.normal(size=size) for size in [(len(vocab), 8), (2, 8), (8, 1)])
    ids = [vocab[token] for token in ["[CLS]", "who", "wrote", "[SEP]", "dune", "[SEP]"]]
    (logit,) = OnnxScorer(folder).score([("Who wrote", "Dune")])
    assert logit == pytest.approx((words[ids].mean(0) @ head).item(), abs=1e-5)


def test_a_dynamically_quantised_model_scores_each_row_alone(make_model: MakeModel) -> None:
    folder = make_model()
    plain = OnnxScorer(folder).score(PAIRS)
    quantize_dynamic(folder / "onnx/model.onnx", folder / "int8.onnx")
    scorer = OnnxScorer(folder, onnx_file="int8.onnx", max_tokens=4096)
    together = scorer.score(PAIRS)
    np.testing.assert_array_equal(together, np.concatenate([scorer.score([pair]) for pair in PAIRS]))
    np.testing.assert_allclose(together, plain, atol=0.1)


def test_two_labels_give_their_difference(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(labels=2))
    logits = scorer._session.run("logits", _inputs(scorer, PAIRS[0]))
    assert scorer.score(PAIRS[:1])[0] == pytest.approx(logits[0, 1] - logits[0, 0], abs=1e-6)


def _inputs(scorer: OnnxScorer, pair: tuple[str, str]) -> dict[str, np.ndarray]:
    ids = scorer._encoder.encode([pair])[0].ids[None].astype(np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_the_output_called_logits_is_read_wherever_it_stands(make_model: MakeModel) -> None:
    expected = OnnxScorer(make_model()).score(PAIRS)
    for outputs in (("hidden", "logits"), ("scores",)):
        np.testing.assert_array_equal(OnnxScorer(make_model(outputs=outputs)).score(PAIRS), expected)
    with pytest.raises(ModelError, match="has the outputs hidden, scores, none of which is called logits"):
        OnnxScorer(make_model(outputs=("hidden", "scores")))


def test_config_says_which_of_two_labels_is_relevant(make_model: MakeModel) -> None:
    second = OnnxScorer(make_model(labels=2)).score(PAIRS)
    names = {"0": "relevant", "1": "irrelevant"}
    folder = make_model(labels=2, config={"model_type": "bert", "id2label": names})
    np.testing.assert_array_equal(OnnxScorer(folder).score(PAIRS), -second)


def test_token_types_tell_the_sides_apart(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(token_types=True))
    forward, backward = scorer.score([("who wrote", "dune"), ("dune", "who wrote")])
    assert abs(forward - backward) > 1e-3


def test_half_precision_comes_out_as_float32(make_model: MakeModel) -> None:
    full = OnnxScorer(make_model("full")).score(PAIRS)
    half = OnnxScorer(make_model("half", output=TensorProto.FLOAT16)).score(PAIRS)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=2e-3)


def test_no_pairs(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model())
    assert scorer.score([]).shape == (0,)
    assert scorer.overflow([]).shape == (0,)


def test_threads_may_share_a_scorer(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(), max_length=20, threads=2)
    expected = scorer.score(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for _, answer in pool.map(lambda _: (scorer.overflow(PAIRS), scorer.score(PAIRS)), range(20)):
            np.testing.assert_array_equal(answer, expected)


def test_a_text_that_no_tokenizer_takes_costs_its_pair_alone(make_model: MakeModel) -> None:
    outcome = score_checked(OnnxScorer(make_model()), [*PAIRS, ("who", "\ud800")])
    assert set(outcome.errors) == {len(PAIRS)}
    assert outcome.errors[len(PAIRS)].reason == "model_error"


# Length


def test_only_the_passage_is_cut_beside_a_short_query(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(), max_length=12)
    long, cut = scorer.score([("who wrote", "dune sand " * 10), ("who wrote", "dune sand " * 3 + "dune")])
    assert long == cut  # 3 special tokens and 2 of the query leave 7


def test_a_query_beyond_half_of_the_input_is_cut_too(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(), max_length=12)
    fits = ("who wrote who wrote", "dune sand dune sand dune")
    long, cut = scorer.score([("who wrote " * 10, "dune sand " * 10), fits])
    assert long == pytest.approx(cut, abs=1e-6)  # 9 tokens are left for both


def test_overflow_counts_the_tokens_that_were_not_seen(make_model: MakeModel) -> None:
    scorer = OnnxScorer(make_model(), max_length=12)
    assert isinstance(scorer, MeasuresOverflow)
    pairs = [("who", "dune"), ("who wrote", "dune " * 7), ("who wrote", "dune " * 10), ("who", "砂" * 11)]
    overflow = scorer.overflow(pairs)
    assert overflow.dtype == np.int32
    assert overflow.tolist() == [0, 0, 3, 3]


def test_overflow_skips_no_text_that_is_too_long(make_model: MakeModel) -> None:
    folder = make_model()
    scorer, tokenizer = OnnxScorer(folder, max_length=12), load_tokenizer(folder / "tokenizer.json")
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("ab ,砂éﷺ"), size=random.integers(0, 14))) for _ in range(400)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    counted = [max(0, len(tokenizer.encode(*pair).ids) - 12) for pair in pairs]
    assert scorer.overflow(pairs).tolist() == counted
    assert 0 < counted.count(0) < len(pairs)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 64),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 64}, 62),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 64, "pad_token_id": 0}, 63),
    ],
)
def test_max_length_beyond_the_models_positions(make_model: MakeModel, config: Any, limit: int) -> None:
    folder = make_model(config=config)
    assert len(OnnxScorer(folder, max_length=limit).score(PAIRS)) == len(PAIRS)
    with pytest.raises(
        ModelError, match=f"takes at most {limit} tokens .*set scoring.max_length = {limit} or"
    ):
        OnnxScorer(folder, max_length=limit + 1)


@pytest.mark.parametrize("options", [{"max_length": 4}, {"max_tokens": -1}, {"threads": -1}])
def test_senseless_settings(make_model: MakeModel, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        OnnxScorer(make_model(), **options)


# Identity


def test_the_fingerprint_names_weights_tokenizer_and_length(make_model: MakeModel) -> None:
    folder = make_model()
    same = shutil.copytree(folder, folder.with_name("same"))
    assert OnnxScorer(folder).fingerprint == OnnxScorer(same, max_tokens=64, threads=1).fingerprint
    assert len(bytes.fromhex(OnnxScorer(folder).fingerprint)) == 16
    text = (same / "tokenizer.json").read_text()
    (same / "tokenizer.json").write_text(text + "\n")
    others = [OnnxScorer(same), OnnxScorer(folder, max_length=255), OnnxScorer(make_model("other", seed=1))]
    assert len({OnnxScorer(folder).fingerprint, *(scorer.fingerprint for scorer in others)}) == 4


def test_the_fingerprint_covers_weights_in_a_file_of_their_own(make_model: MakeModel) -> None:
    prints = set()
    for seed in (0, 1):
        folder = make_model(f"seed{seed}", external="odd name.bin", seed=seed)
        assert (folder / "onnx/odd name.bin").is_file()
        prints.add(OnnxScorer(folder).fingerprint)
    assert len(prints) == 2


# Folders that cannot be used


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx", "onnx/model_int8.onnx", "any.onnx"])
def test_the_onnx_file_is_found(make_model: MakeModel, file: str) -> None:
    assert OnnxScorer(make_model(file=file)).score(PAIRS).shape == (len(PAIRS),)


def test_the_usual_name_wins_over_others(make_model: MakeModel) -> None:
    folder = make_model()
    expected = OnnxScorer(folder).fingerprint
    shutil.copy(make_model("other", seed=3) / "onnx/model.onnx", folder / "onnx/model_O3.onnx")
    assert OnnxScorer(folder).fingerprint == expected
    assert OnnxScorer(folder, onnx_file="onnx/model_O3.onnx").fingerprint != expected


def test_several_files_want_a_choice(make_model: MakeModel) -> None:
    folder = make_model(file="a.onnx")
    shutil.copy(folder / "a.onnx", folder / "b.onnx")
    with pytest.raises(ModelError, match=r"set scoring.onnx_file to one of: a.onnx, b.onnx"):
        OnnxScorer(folder)
    with pytest.raises(ModelError, match=r"no c.onnx in .*set scoring.onnx_file to one of: a.onnx, b.onnx"):
        OnnxScorer(folder, onnx_file="c.onnx")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def cut(folder: Path) -> None:
    path = folder / "onnx/model.onnx"
    path.write_bytes(path.read_bytes()[:1500])


def no_padding(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    tokenizer = json.loads((folder / "tokenizer.json").read_text().replace("[PAD]", "[FILL]"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, r"no model folder at .*name the folder of a model"),
        (remove("onnx/model.onnx"), r"no ONNX file in .*export the model to .*model.onnx"),
        (remove("tokenizer.json"), r"no .*tokenizer.json; .*save_pretrained"),
        (write("tokenizer.json", "{}"), r"tokenizer.json is not a tokenizer"),
        (write("config.json", "{"), r"config.json is not readable JSON"),
        (write("config.json", "[1]"), r"config.json is a list"),
        (
            cut,
            r"model.onnx \(1,500 bytes\) cannot be loaded: truncated or not a model, copy or export it again",
        ),
        (write("onnx/model.onnx", ""), r"model.onnx \(0 bytes\) cannot be loaded"),
        (write("onnx/model.onnx", "PK not a model"), r"model.onnx \(14 bytes\) cannot be loaded"),
        (
            write("onnx/model.onnx", "version https://git-lfs.github.com/spec/v1\n"),
            r"a Git LFS pointer, git lfs pull",
        ),
        (no_padding, r"names no padding token; add pad_token_id to its config.json"),
    ],
)
def test_a_damaged_folder_is_refused(make_model: MakeModel, damage: Callable[[Path], Any], said: str) -> None:
    folder = make_model()
    damage(folder)
    with pytest.raises(ModelError, match=said):
        OnnxScorer(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooled": False}, r"shape \[2, \d+, 1\], not \[rows, 1\] or \[rows, 2\]: an embedding model"),
        ({"labels": 3}, r"shape \[2, 3\], not .* a classifier of more labels"),
        (
            {"extra_input": "position_ids"},
            r"has the inputs .*position_ids.*needed are input_ids and attention_mask",
        ),
        ({"integer": TensorProto.FLOAT}, r"cannot be loaded|has the inputs input_ids: tensor\(float\)"),
        ({"batch": 1}, r"export it with dynamic batch and sequence axes"),
    ],
)
def test_a_foreign_model_is_refused(make_model: MakeModel, options: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        OnnxScorer(make_model(**options))


def test_a_tokenizer_of_another_model_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["foreign"] = 30_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ModelError, match=r"the model whose tokenizer.json this is \(its ids go up to 30000\)"
    ):
        OnnxScorer(folder)


@pytest.mark.parametrize(
    ("settings", "config"),
    [({"pad_token": {"content": "[PAD]"}}, {}), ({}, {"pad_token_id": 0}), ({}, {})],
)
def test_where_the_padding_token_may_stand(make_model: MakeModel, settings: Any, config: Any) -> None:
    folder = make_model(config={"model_type": "bert", **config})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert len(OnnxScorer(folder).score(PAIRS)) == len(PAIRS)


# From the outside


def test_rank_by_a_folder(make_model: MakeModel) -> None:
    folder = make_model()
    passages = [passage for _, passage in PAIRS]
    ranked = rerank_core.rank("Who wrote the novel Dune?", passages, model=folder, tags=False)
    logits = OnnxScorer(folder).score([("Who wrote the novel Dune", p.strip()) for p in passages])
    assert [passage.index for passage in ranked] == np.argsort(-logits, kind="stable").tolist()


def test_parity_with_sentence_transformers(make_model: MakeModel) -> None:
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'nightrank[train]'")
    pytest.importorskip("onnxscript", reason="the export of the parity test needs onnxscript")
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="parity needs sentence-transformers"
    )
    transformers = pytest.importorskip("transformers")
    folder = make_model(token_types=True)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1, **sizes
    )
    model = transformers.BertForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tokenizer([PAIRS[0], PAIRS[1]], padding=True, return_tensors="pt")
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    torch.onnx.export(
        model,
        tuple(example[name] for name in names),
        str(folder / "onnx/model.onnx"),
        dynamo=False,
        input_names=list(names),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
    )
    peer = sentence_transformers.CrossEncoder(str(folder), max_length=24, activation_fn=torch.nn.Identity())
    ours = OnnxScorer(folder, max_length=24).score([*PAIRS, (QUERY * 5, PAIRS[0][1] * 5)])
    np.testing.assert_allclose(ours, peer.predict([*PAIRS, (QUERY * 5, PAIRS[0][1] * 5)]), atol=1e-5)
