"""Smoke tests on a tiny random encoder: no downloaded weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
transformers = pytest.importorskip(
    "transformers", reason="needs transformers: pip install 'nightrank[train]'"
)

from pipelines.recipes.default_model import trainer
from pipelines.recipes.default_model.network import ModelSpec, load_model
from rerank_core.features.render import Rendered, special_tokens
from rerank_core.scoring.backends.onnx import OnnxScorer

WORDS = "the rhine elbe rises in alps hills where does hop none 0 1 2 3 role main".split()
PAIRS = [
    Rendered("where does the rhine rises", f"the {river} rises in the {place}")
    for river in ("rhine", "elbe")
    for place in ("alps", "hills alps the alps")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    # [CLS] must have BERT's own id, 101, which the model puts where the passage begins.
    unused = [f"[unused{i}]" for i in range(99)]
    vocabulary = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def ready(base):
    tokenizer, pieces = trainer.extend_tokenizer(base, special_tokens())
    return tokenizer, lambda **spec: load_model(
        base, spec=ModelSpec(closed_layers=1, **spec), new_tokens=pieces
    )


def logits(model, tokenizer, pairs):
    with torch.no_grad():
        return model(**trainer.encode(tokenizer, pairs, max_length=64)).squeeze(-1).numpy()


def test_tags_are_one_token_each(ready):
    tokenizer, _ = ready
    ids = tokenizer(" ".join(special_tokens()), add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids) == len(special_tokens())


def test_with_closed_gates_the_model_is_the_bi_encoder(ready):
    tokenizer, load = ready
    model = load(gate=-1e4)
    sides = [
        trainer.embed(model, texts, tokenizer=tokenizer, max_length=64)
        for texts in ([p.query for p in PAIRS], [p.passage for p in PAIRS])
    ]
    # The pair's query side has no closing [SEP] of its own: equal up to that one token.
    expected = 20 * (sides[0] * sides[1]).sum(1) - 8
    assert np.corrcoef(logits(model, tokenizer, PAIRS), expected)[0, 1] > 0.9


def test_the_passage_reaches_the_query_through_open_gates_only(ready):
    tokenizer, load = ready
    for gate, differs in ((-1e4, False), (0.0, True)):
        model = load(gate=gate)
        seen = []
        original = model._logit
        model._logit = lambda hidden, *rest, seen=seen, original=original: (
            seen.append(hidden[:, 1].clone()),
            original(hidden, *rest),
        )[1]
        logits(model, tokenizer, PAIRS[:1])
        logits(model, tokenizer, PAIRS[1:2])
        assert bool((seen[0] - seen[1]).abs().max() > 1e-4) is differs


def test_padding_changes_nothing(ready):
    tokenizer, load = ready
    model = load()
    together = logits(model, tokenizer, PAIRS)
    alone = [logits(model, tokenizer, [pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_training_lifts_the_positive_and_leaves_frozen_parts(ready, tmp_path):
    tokenizer, load = ready
    model = load()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    batch = trainer.Batch(PAIRS, [4], [np.zeros(4, dtype=np.float32)], [1.0], [0.0])
    spec = trainer.TrainSpec(minutes=0.05, learning_rate=1e-3)
    seen = []
    facts = trainer.train(
        model, iter(lambda: batch, None), tokenizer=tokenizer, spec=spec, on_step=seen.append
    )
    assert facts["steps"] == len(seen)
    assert seen[-1]["gold"] < seen[0]["gold"]
    assert all(torch.equal(value, dict(model.named_parameters())[n]) for n, value in frozen.items())
    trainer.save_weights(model, tmp_path / "w.safetensors")
    again = load()
    trainer.load_weights(again, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(logits(again, tokenizer, PAIRS), logits(model, tokenizer, PAIRS))


def test_loss_by_hand():
    batch = trainer.Batch(PAIRS[:2], [2], [np.array([0.0, np.log(3)], dtype=np.float32)], [1.0], [0.5])
    parts = trainer.loss(torch.tensor([0.0, 0.0]), batch, trainer.TrainSpec(level_weight=0.1))
    half = float(np.log(2))
    taught = half + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)  # KL of (1/4, 3/4) from (1/2, 1/2)
    assert parts["gold"].item() == pytest.approx(half)
    assert parts["teacher"].item() == pytest.approx(0.5 * taught)
    assert parts["total"].item() == pytest.approx(1.1 * half + 0.5 * taught)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (1.0, 0.0), (2.0, 0.0)]
)
def test_schedule_rises_then_falls_to_zero(progress, factor):
    assert trainer.schedule(progress, warm_up=0.1) == pytest.approx(factor)


def test_blend_is_a_line():
    start, end = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert trainer.blend(start, end, 0.25)["w"].tolist() == [1.0, 2.0]


def test_the_exported_model_scores_as_the_torch_one(base, ready, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnx: pip install 'nightrank[train]'")
    write = pytest.importorskip("pipelines.recipes.default_model.write", reason="needs onnx and onnxruntime")
    tokenizer, load = ready
    model = load()
    config = transformers.BertConfig.from_pretrained(base)
    full = write.write_model(model, tmp_path / "model", tokenizer=tokenizer, config=config)
    pairs = [tuple(pair) for pair in PAIRS]
    np.testing.assert_allclose(OnnxScorer(full).score(pairs), logits(model, tokenizer, PAIRS), atol=1e-4)
    small = OnnxScorer(tmp_path / "model")
    assert np.isfinite(small.score(pairs)).all()
    assert small.score(pairs[:1])[0] == small.score(pairs)[0]
