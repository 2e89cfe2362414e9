"""OpenVINO: the same logits as ONNX Runtime, with the first-token cut, quantised, and in batches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_core.errors import ModelError
from rerank_core.scoring.fault_tolerant import score_checked

pytest.importorskip(
    "rerank_core.scoring.backends.openvino", reason="openvino is not installed", exc_type=ImportError
)

import openvino  # after the module that keeps it from reporting its use

from rerank_core.scoring.backends.onnx import OnnxScorer
from rerank_core.scoring.backends.openvino import OpenVinoScorer, head_sizes, read_model, safe_width
from rerank_core.scoring.backends.openvino_cls import keep_first_token
from rerank_core.scoring.backends.openvino_int8 import quantise
from rerank_core.scoring.load import DEFAULT_MODEL
from tests.support.tiny_onnx import KINDS

MakeModel = Callable[..., Path]
QUERY = "who wrote the novel dune"
WORDS = "who wrote the novel dune was written by frank herbert sand moves".split()
PAIRS = [
    (QUERY, "dune was written by frank herbert"),
    (QUERY, "sand moves"),
    (QUERY, ""),
    ("sand", "the sand moves by the dune, " * 6),
    (QUERY * 5, "the novel dune " * 9),
    ("who", "é ü 砂"),
]


def many(count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    return [
        (" ".join(random.choice(WORDS, 4)), " ".join(random.choice(WORDS, random.integers(1, 40))))
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [1, 2])
def test_every_kind_scores_as_in_onnx_runtime(make_transformer: MakeModel, kind: str, labels: int) -> None:
    folder = make_transformer(kind, labels=labels)
    expected = OnnxScorer(folder, max_length=40).score(PAIRS)
    scorer = OpenVinoScorer(folder, max_length=40, threads=2)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-3)
    assert scorer.score([]).shape == (0,)


@pytest.mark.parametrize("max_tokens", [1, 64, 4096])
def test_a_row_alone_scores_as_it_does_in_a_batch(make_transformer: MakeModel, max_tokens: int) -> None:
    scorer = OpenVinoScorer(make_transformer(), max_tokens=max_tokens, max_length=60)
    together = scorer.score(PAIRS)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, np.concatenate([scorer.score([pair]) for pair in PAIRS]), atol=1e-5)


def test_the_output_called_logits_is_read_wherever_it_stands(make_model: MakeModel) -> None:
    expected = OnnxScorer(make_model()).score(PAIRS)
    for outputs in (("hidden", "logits"), ("scores",)):
        logits = OpenVinoScorer(make_model(outputs=outputs)).score(PAIRS)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    with pytest.raises(ModelError, match=r"has the outputs .*none of which is called logits"):
        OpenVinoScorer(make_model(outputs=("hidden", "scores")))


def test_config_says_which_of_two_labels_is_relevant(make_model: MakeModel) -> None:
    second = OpenVinoScorer(make_model(labels=2)).score(PAIRS)
    names = {"0": "relevant", "1": "irrelevant"}
    folder = make_model(labels=2, config={"model_type": "bert", "id2label": names})
    np.testing.assert_array_equal(OpenVinoScorer(folder).score(PAIRS), -second)


def test_nothing_is_reported_about_its_use() -> None:
    """OpenVINO would ask a collector on the network, from a process that it forks. In a process of its own."""
    code = (
        "import sys, time\n"
        "events = set()\n"
        "sys.addaudithook(lambda event, _: events.add(event))\n"
        "import rerank_core.scoring.backends.openvino_int8\n"
        "time.sleep(1)\n"  # it is sent by a thread
        "print(events & {'os.fork', 'urllib.Request', 'socket.connect', 'socket.getaddrinfo'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(("kind", "heads"), [("bert", 2), ("bert", 1), ("electra", 2)])  # of 16 or 32 numbers
def test_int8_scores_a_row_alike_at_every_width(make_transformer: MakeModel, kind: str, heads: int) -> None:
    folder = make_transformer(kind, hidden_size=32, num_attention_heads=heads)
    pairs = [("who", " ".join(np.resize(WORDS, length))) for length in range(1, 40)]
    quantise(folder, pairs, max_length=60)
    scorer = OpenVinoScorer(folder, precision="int8", max_length=60)
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    beside_a_longer_row = np.concatenate([scorer.score([pair, ("who", "sand " * 50)])[:1] for pair in pairs])
    # A sum on the edge between two steps of int8 may be rounded either way.
    np.testing.assert_allclose(alone, beside_a_longer_row, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_no_int8_batch_is_as_wide_as_an_attention_head(make_transformer: MakeModel, kind: str) -> None:
    model = read_model(make_transformer(kind, hidden_size=32, num_attention_heads=1) / "onnx" / "model.onnx")
    assert head_sizes(model) == {32}
    keep_first_token(model)
    assert head_sizes(model) == {32}
    assert [safe_width(length, {32}) for length in (28, 29, 32, 33)] == [28, 36, 36, 36]
    assert safe_width(30, set()) == 32


def test_threads_may_share_a_scorer(make_transformer: MakeModel) -> None:
    scorer = OpenVinoScorer(make_transformer(), threads=2)
    expected = scorer.score(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: scorer.score(PAIRS), range(12)):
            np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_a_text_that_no_tokenizer_takes_costs_its_pair_alone(make_transformer: MakeModel) -> None:
    outcome = score_checked(OpenVinoScorer(make_transformer()), [*PAIRS, ("who", "\ud800")])
    assert set(outcome.errors) == {len(PAIRS)}


def test_the_fingerprint_names_weights_precision_and_length(make_transformer: MakeModel) -> None:
    folder = make_transformer()
    quantise(folder, many(20))
    prints = [
        OpenVinoScorer(folder, **options).fingerprint
        for options in ({}, {"max_length": 40}, {"precision": "int8"})
    ]
    prints.append(OnnxScorer(folder).fingerprint)
    prints.append(OpenVinoScorer(make_transformer("electra")).fingerprint)
    assert len(set(prints)) == 5
    assert OpenVinoScorer(folder, threads=1, max_tokens=99).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"precision": "int8"}, ModelError, "no .*_qint8_quantized.xml; write it with: nightrank autotune"),
        (
            {"precision": "fp16"},
            ValueError,
            r"scoring.precision 'fp16' is not one of openvino's: fp32, bf16, int8",
        ),
        ({"max_tokens": -1}, ValueError, "max_tokens is -1"),
        ({"max_length": 500}, ModelError, "takes at most 300 tokens"),
    ],
)
def test_what_cannot_be_run(make_transformer: MakeModel, options: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        OpenVinoScorer(make_transformer(), **options)


@pytest.mark.parametrize("options", [{"pooled": False}, {"extra_input": "pixel_values"}, {"batch": 1}])
def test_a_foreign_model_is_refused(make_model: MakeModel, options: Any) -> None:
    with pytest.raises(ModelError, match=r"model.onnx"):
        OpenVinoScorer(make_model(**options))


def test_a_broken_file_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "onnx" / "model.onnx").write_bytes(b"version https://git-lfs")
    with pytest.raises(ModelError, match="cannot be loaded: truncated or not a model"):
        OpenVinoScorer(folder)


def test_bf16_needs_a_processor_that_has_it(
    make_transformer: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_transformer()
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        full = OpenVinoScorer(folder, max_length=60).score(PAIRS)
        np.testing.assert_allclose(
            OpenVinoScorer(folder, precision="bf16", max_length=60).score(PAIRS), full, atol=0.2
        )
    else:
        with pytest.raises(ModelError, match="this processor has no bf16"):
            OpenVinoScorer(folder, precision="bf16")


def test_what_cannot_be_quantised_is_not_sent_to_autotune() -> None:
    with pytest.raises(ModelError, match="made from an ONNX file in fp32, which the folder lacks"):
        OpenVinoScorer(DEFAULT_MODEL, precision="int8")
