"""`rank`: passages that a caller has at hand, in the order and with the scores that a night would give them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core import stages
from rerank_core.candidates import units
from rerank_core.config.night import Tagging
from rerank_core.config.source import Candidates
from rerank_core.errors import ConfigError, ScoringFailed
from rerank_core.features import tagger
from rerank_core.ranking import order, stored
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, score_of
from rerank_core.ranking.fusion import Fusion, check_bi_encoder, fuse
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer, reads_tags
from rerank_core.text import normalise_query, query_id
from schemas.records import Candidate, Document, Query, QueryGroup, RankedCandidate, ScoredCandidate
from schemas.tags import Tags

Passage = str | tuple[str, str]


class RankedPassage(NamedTuple):
    """One passage with its scores, named as the columns of `reranked`."""

    index: int  # type: ignore[assignment]  # into the passages as given; hides tuple.index
    passage: Passage  # as given
    logit: float  # of the cross-encoder
    score: float  # 0 to 1: the sigmoid of the fused logit, else the calibrated logit
    tags: Tags | None  # None with tags=False
    fused_logit: float | None = None  # what the order goes by; None without fusion: it goes by the logit


def rank(
    query: str,
    passages: Sequence[Passage],
    *,
    first_stage_scores: Sequence[float] | None = None,
    model: str | Path | Scorer | None = None,
    bi_encoder: str | Path | Scorer | None = None,
    tags: bool = True,
    top_n: int | None = None,
    **options: Any,
) -> list[RankedPassage]:
    """Order passages by their relevance to a query: order, scores and tags are those of a night.

    A model's folder may hold fusion.json and calibration.json; they are applied as a night applies them. Fusion sums
    the logit, the first-stage score and how the passages are linked, for which titles matter: give (title, text) where
    there is a title. Tags and fusion look at all passages together, so a passage can score differently among others.

    Args:
        query: a question or search.
        passages: texts, or (title, text). Each is scored whole; give them in the order of retrieval, by which equal
            ones are ordered.
        first_stage_scores: one per passage, as BM25 gives them; higher is better. Fusion standardises them among the
            passages, so another retriever's will do, or minus the logarithm of the rank where only an order is known.
            None: fusion leaves the first stage out.
        model: a model's folder or name on the Hugging Face Hub; None: the model that ships with Nightrank. It is
            loaded once a process. A scorer is used as it is, without fusion and calibration.
        bi_encoder: the bi-encoder that the model's fusion was fitted with, if it was with one: folder, name or scorer.
        tags: tag the passages. The model reads the tags only if it was trained to.
        top_n: how many to return; None for all.
        options: of `load_scorer`, for the model, as backend="torch", device="cuda".

    Returns:
        The passages, most relevant first; [] for no passages.

    Raises:
        TypeError: a query that is not a str, a passage that is neither a str nor a (str, str).
        ValueError: an empty query, a top_n below 1, first-stage scores that are not one finite number per passage;
            ConfigError: a bi-encoder that fusion needs is missing, or one is given that it does not need.
        ModelError: a folder that cannot be used.
        ScoringFailed: a passage that the model cannot score; the message gives its index.
    """
    group = _make_group(query, passages, first_stage_scores)
    if top_n is not None and top_n < 1:
        raise ValueError(f"top_n is {top_n}; ask for at least 1, or None for all")
    if not group.candidates:
        return []
    opened = _open_model(model, options)
    encoder = _open_bi_encoder(bi_encoder, opened)
    config = Tagging(enabled=tags)
    if tags:
        passages_read = stages.passages_to_read([group])
        facts = tagger.read(passages_read, tagger.default_recogniser(config))
        group = stages.tag_group(group, dict(zip(passages_read, facts, strict=True)), config=config)
    if encoder:
        ([group], _) = stages.first_stage_scores([group], encoder)
    group = _score(group, opened.scorer, tagged=reads_tags(opened.scorer, config))
    ranked = order.rank(fuse(group, opened.fusion) if opened.fusion else group)
    return [_ranked_passage(passages, one, opened.calibration) for one in ranked.candidates[:top_n]]


class _Model(NamedTuple):
    """A cross-encoder with the fusion and the calibration of its folder."""

    scorer: Scorer
    fusion: Fusion | None = None
    calibration: Calibration = UNCALIBRATED
    name: str = ""


def _open_model(model: str | Path | Scorer | None, options: dict[str, Any]) -> _Model:
    if model is None or isinstance(model, str | Path):
        return _load_model(str(model or ""), **options)
    if options:
        raise TypeError(
            f"{', '.join(options)}: options are for a model's folder; this scorer is open already"
        )
    return _Model(model)


@functools.lru_cache(maxsize=4)
def _load_model(model: str, **options: Any) -> _Model:
    scorer = load_scorer(model, **options)
    fusion, _ = stored.read_fusion(model)
    calibration, _ = stored.read_calibration(model)
    return _Model(scorer, fusion, calibration, model or "the model that ships")


@functools.lru_cache(maxsize=4)
def _load_bi_encoder(model: str) -> Scorer:
    return load_scorer(model, backend="bi_encoder")


def _open_bi_encoder(given: str | Path | Scorer | None, model: _Model) -> Scorer | None:
    """The bi-encoder of the model's fusion, checked to be the one that it was fitted with."""
    if given is not None and not (model.fusion and model.fusion.bi_encoder):
        raise ConfigError(
            "bi_encoder would have no effect: the model's fusion was not fitted with one; leave it out"
        )
    if not model.fusion:
        return None
    encoder = _load_bi_encoder(str(given)) if isinstance(given, str | Path) else given
    return check_bi_encoder(model.fusion, encoder, model=model.name)


def _make_group(
    query: str, passages: Sequence[Passage], first_stage_scores: Sequence[float] | None
) -> QueryGroup:
    text = _checked_query(query)
    titled = _checked_passages(passages)
    scores = [0.0] * len(titled) if first_stage_scores is None else list(map(float, first_stage_scores))
    if len(scores) != len(titled) or not all(map(math.isfinite, scores)):
        raise ValueError(
            f"first_stage_scores are {len(scores)} for {len(titled)} passages, or not finite; give one per passage"
        )
    digits = len(str(len(titled)))  # ids that sort as the passages do: equal ones keep their order
    candidates = [
        _candidate(f"{index:0{digits}d}", *passage, score, index + 1)
        for index, (passage, score) in enumerate(zip(titled, scores, strict=True))
    ]
    scored = tuple(ScoredCandidate(one, None, "", None, False, 0) for one in candidates)
    return QueryGroup(Query(query_id(text), text, 1, 0, ()), scored)


def _candidate(name: str, title: str, text: str, score: float, rank: int) -> Candidate:
    """A passage as a candidate of one unit; one without text is scored too, though a night would reject it."""
    document = Document(name, title, text, (), score, rank)
    (unit,) = units.split(document, config=Candidates()) or [Candidate(name, name, "", "", score, rank)]
    return unit


def _score(group: QueryGroup, scorer: Scorer, *, tagged: bool) -> QueryGroup:
    group = stages.reuse_scores(group, {}, model_fingerprint=scorer.fingerprint, tagged=tagged)
    ([group], rejected) = stages.score_groups([group], scorer, tagged=tagged)
    for record in rejected:
        index = int(record.record.rpartition("/")[2])
        raise ScoringFailed(f"passage {index} cannot be scored: {record.reason}: {record.detail}")
    return group


def _ranked_passage(
    passages: Sequence[Passage], ranked: RankedCandidate, calibration: Calibration
) -> RankedPassage:
    scored = ranked.scored
    index, score = int(scored.candidate.doc_id), score_of(scored, calibration)
    assert scored.logit is not None, "_score raises where a passage has no logit"
    assert score is not None, "and with a logit there is a score"
    return RankedPassage(index, passages[index], scored.logit, score, scored.tags, scored.fused)


def _checked_query(query: str) -> str:
    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, {query!r:.80}; give a str")
    text = normalise_query(query)
    if not text:
        raise ValueError(f"query {query!r:.80} is empty")
    return text


def _checked_passages(passages: Sequence[Passage]) -> list[tuple[str, str]]:
    if isinstance(passages, str):
        raise TypeError("passages is one str; give a list of passages")
    titled: list[tuple[str, str]] = []
    for index, passage in enumerate(passages):
        match passage:
            case str():
                titled.append(("", passage))
            case (str() as title, str() as text):
                titled.append((title, text))
            case _:
                raise TypeError(f"passage {index} is {passage!r:.80}; give a text, or a (title, text)")
    return titled
