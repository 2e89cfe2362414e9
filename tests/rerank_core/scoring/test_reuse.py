from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.scoring.reuse import PreviousScore, input_fingerprint, pack, unpack
from schemas.records import Evidence

TEXT = st.text(max_size=20)
LOGITS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EVIDENCE = st.builds(
    Evidence,
    sentences=st.sets(st.integers(0, 63), min_size=1).map(sorted).map(tuple),
    logit=LOGITS,
)
ROWS = st.dictionaries(
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.builds(
        PreviousScore,
        logit=st.none() | LOGITS,
        evidence=st.none() | EVIDENCE,
        overflow=st.integers(0, 2**31 - 1),
        first_stage=st.none() | LOGITS,
    ),
    max_size=20,
)


@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_fingerprints_are_equal_only_for_equal_inputs(a: str, b: str, m: str, c: str, d: str, n: str) -> None:
    same = input_fingerprint(a, b, model_fingerprint=m) == input_fingerprint(c, d, model_fingerprint=n)
    assert same == ((a, b, m) == (c, d, n))


@given(TEXT, TEXT, TEXT)
def test_moving_a_boundary_changes_the_fingerprint(a: str, b: str, m: str) -> None:
    assert input_fingerprint(a + "x", b, model_fingerprint=m) != input_fingerprint(
        a, "x" + b, model_fingerprint=m
    )
    assert input_fingerprint("x" + a, b, model_fingerprint=m) != input_fingerprint(
        a, b, model_fingerprint=m + "x"
    )


def test_the_fingerprint_is_what_is_already_published() -> None:
    """A change of this value makes every published score useless once: intended ones only."""
    raw = (5).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"modelqp"
    expected = hashlib.blake2b(raw, digest_size=16).hexdigest()
    assert (
        input_fingerprint("q", "p", model_fingerprint="model")
        == expected
        == "0b3f90e0b680341045fc499ac822f1f9"
    )


def test_a_lone_surrogate_has_a_fingerprint() -> None:
    assert len(input_fingerprint("\ud800", "p", model_fingerprint="m")) == 32


@given(ROWS)
def test_packed_scores_come_back_exactly(rows: dict[str, PreviousScore]) -> None:
    blob = pack(rows.items())
    assert len(blob) == 40 * len(rows)
    assert unpack(blob) == rows


def test_evidence_beyond_the_bits_of_a_row_is_found_again() -> None:
    rows = {"0" * 32: PreviousScore(1.0, 0, Evidence((3, 64), 0.5))}
    assert unpack(pack(rows.items())) == {"0" * 32: PreviousScore(1.0, 0)}


@given(ROWS, ROWS)
def test_blobs_may_be_concatenated(first: dict[str, PreviousScore], second: dict[str, PreviousScore]) -> None:
    assert unpack(pack(first.items()) + pack(second.items())) == first | second


@pytest.mark.parametrize("fingerprint", ["", "ab", "0" * 31, "0" * 34, "z" * 32])
def test_a_foreign_fingerprint_is_refused(fingerprint: str) -> None:
    with pytest.raises(ValueError, match="is not 32 hex digits; use input_fingerprint"):
        pack([(fingerprint, PreviousScore(1.0, 0))])


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_score_is_refused(logit: float) -> None:
    for row in (PreviousScore(logit, 0), PreviousScore(1.0, 0, first_stage=logit)):
        with pytest.raises(ValueError, match=r"is not finite|does not fit float32"):
            pack([("0" * 32, row)])


def test_a_cut_blob_is_refused() -> None:
    with pytest.raises(ValueError, match="39 bytes are not whole rows of 40"):
        unpack(pack([("0" * 32, PreviousScore(1.0, 0))])[:-1])
