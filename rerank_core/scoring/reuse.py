"""The previous run's output is a score cache: a score is reused if the model and its exact input are the same.

The fingerprint covers both rendered sides (tags and text) and the model's own fingerprint (weights, tokenizer,
max_length), so a changed model, tag or text never gets a stale score.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable
from typing import NamedTuple

from schemas.records import Evidence

_LENGTHS = struct.Struct("<QQ")
_ROW = struct.Struct("<16sfiQff")
_UNKNOWN = math.nan  # packed for a score that is None
_MOST_SENTENCES = 64  # bits of a row's evidence; evidence beyond the 64th sentence is computed again


def input_fingerprint(query_side: str, passage_side: str, *, model_fingerprint: str) -> str:
    """Identity of one model input: 32 hex digits.

    Args:
        query_side: first side as `rerank_core.features.render` writes it, tags included.
        passage_side: second side.
        model_fingerprint: `Scorer.fingerprint`.

    Returns:
        BLAKE2b-128 over the three texts. Their lengths are hashed first, so that moving a character from one
        side to the other changes the result.
    """
    model = model_fingerprint.encode()
    query = query_side.encode("utf-8", "surrogatepass")
    passage = passage_side.encode("utf-8", "surrogatepass")
    head = _LENGTHS.pack(len(model), len(query))
    return hashlib.blake2b(b"".join((head, model, query, passage)), digest_size=16).hexdigest()


class PreviousScore(NamedTuple):
    """What an earlier run computed for one input."""

    logit: float | None  # None: pruned by the cascade
    overflow: int  # tokens beyond max_length, since a reused score is still that of a truncated input
    evidence: Evidence | None = None
    first_stage: float | None = None  # score of the first-stage model


def pack(rows: Iterable[tuple[str, PreviousScore]]) -> bytes:
    """Pack the scores of one query, 40 bytes per row, so that a join shuffles little.

    A row is the 16-byte input fingerprint, the logit as a little-endian float32, which is the precision that is
    published (the round trip is exact), the overflow, the evidence's sentences as bits (none: no evidence) and its
    logit, and the first-stage score. Packed blobs may be concatenated.

    Raises:
        ValueError: a fingerprint that is not 32 hex digits, or a score that is not finite in float32.
    """
    packed = []
    for fingerprint, (logit, overflow, evidence, first_stage) in rows:
        try:
            digest = bytes.fromhex(fingerprint)
        except ValueError:
            digest = b""
        if len(digest) != 16:
            raise ValueError(f"fingerprint {fingerprint!r} is not 32 hex digits; use input_fingerprint")
        for score in (logit, first_stage):
            if score is not None and not math.isfinite(score):
                raise ValueError(
                    f"score {score!r} of input {fingerprint} is not finite; it may not be reused"
                )
        both = (_UNKNOWN if score is None else score for score in (logit, first_stage))
        try:
            packed.append(_ROW.pack(digest, next(both), overflow, *_bits(evidence), next(both)))
        except OverflowError:
            raise ValueError(f"score {logit!r} of input {fingerprint} does not fit float32") from None
    return b"".join(packed)


def unpack(blob: bytes) -> dict[str, PreviousScore]:
    """The score of each input fingerprint.

    Equal inputs have equal scores, so of two rows with one fingerprint either will do.

    Raises:
        ValueError: `blob` is not whole rows of 40 bytes.
    """
    if len(blob) % _ROW.size:
        raise ValueError(
            f"{len(blob)} bytes are not whole rows of {_ROW.size}; the packed scores are truncated"
        )
    return {
        digest.hex(): PreviousScore(
            _known(logit), overflow, _evidence(bits, of_evidence), _known(first_stage)
        )
        for digest, logit, overflow, bits, of_evidence, first_stage in _ROW.iter_unpack(blob)
    }


def _known(score: float) -> float | None:
    return None if math.isnan(score) else score


def _bits(evidence: Evidence | None) -> tuple[int, float]:
    if evidence is None or evidence.sentences[-1] >= _MOST_SENTENCES:
        return 0, 0.0
    return sum(1 << number for number in evidence.sentences), evidence.logit


def _evidence(bits: int, logit: float) -> Evidence | None:
    return Evidence(tuple(n for n in range(bits.bit_length()) if bits >> n & 1), logit) if bits else None
