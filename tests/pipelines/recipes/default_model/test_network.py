"""The network of the default model, on a tiny random encoder: no downloaded weights."""

import numpy as np

from pipelines.recipes.default_model import trainer
from tests.support.tiny_pair_model import PAIRS, logits


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
