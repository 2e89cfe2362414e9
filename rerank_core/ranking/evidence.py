"""Evidence: the sentences of a passage that best support its rank, so that a reader can quote them.

The best sentence is the one that the model scores highest alone, with the passage's title and tags. With `keep_share`,
the next best are added, in the order of the text, until the selection scores that share of the passage: a greedy
search, which need not find the smallest selection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rerank_core.candidates import units
from rerank_core.config.night import EvidenceOptions
from rerank_core.features.render import passage_text, render
from rerank_core.inference.batching import Pair
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import Scorer
from schemas.records import Evidence, RankedCandidate, RankedGroup, ScoredCandidate

Sentences = tuple[int, ...]
"""Numbers of a unit's sentences, rising."""
Selected = tuple[int, Sentences]
"""A unit's key and a selection of its sentences."""


class EvidenceResult(NamedTuple):
    """Groups with their evidence, and counts."""

    groups: tuple[RankedGroup, ...]
    wanted: int  # units that should have evidence
    reused: int  # of these, known from an earlier run
    failed: int  # of these, those that the model could not score: they have none
    inputs: int  # distinct inputs scored


class _Search(NamedTuple):
    """The state of one unit's search."""

    query: str
    scored: ScoredCandidate
    sentences: list[str]
    order: list[int]  # numbers of the sentences, best first
    taken: int  # how many of them are in the selection

    def selection(self) -> Sentences:
        return tuple(sorted(self.order[: self.taken]))


def split(text: str) -> list[str]:
    """The sentences of a unit's text; the numbers of `Evidence.sentences` count them from 0."""
    return units.sentences(text)


def quote(text: str, evidence: Evidence) -> str:
    """The words of an evidence, in the order of the text."""
    sentences = split(text)
    return " ".join(sentences[number] for number in evidence.sentences)


def find(
    groups: Sequence[RankedGroup],
    scorer: Scorer | None,
    *,
    options: EvidenceOptions,
    tagged: bool,
    calibration: Calibration = UNCALIBRATED,
) -> EvidenceResult:
    """Give the best `top_n` units of every query their evidence, and the others none.

    Args:
        groups: ranked; evidence that candidates have from an earlier run stays.
        scorer: the model; None: units whose evidence is not known from an earlier run get none, and count as failed.
        options: how many units, and how much of their score.
        tagged: whether the model reads the tags.
        calibration: of the model, for shares of a score.
    """
    enough = functools.partial(_enough, keep_share=options.keep_share, calibration=calibration)
    wanted = [(g, r.scored) for g in groups for r in g.candidates if _is_wanted(r, options)]
    known = {id(scored): scored.evidence for _, scored in wanted if scored.evidence}
    searches = {
        id(scored): _Search(group.query.text, scored, split(scored.candidate.text), [], 0)
        for group, scored in wanted
        if id(scored) not in known
    }
    searched: dict[int, Evidence | None] = dict.fromkeys(searches)
    inputs = 0
    if searches and scorer:
        searched, inputs = _search(searches, scorer, enough=enough, tagged=tagged)
    failed = sum(evidence is None for evidence in searched.values())
    evidences = known | searched
    with_evidence = tuple(
        group._replace(
            candidates=tuple(
                ranked._replace(scored=ranked.scored._replace(evidence=evidences.get(id(ranked.scored))))
                for ranked in group.candidates
            )
        )
        for group in groups
    )
    return EvidenceResult(with_evidence, len(wanted), len(known), failed, inputs)


def needs_model(groups: Sequence[RankedGroup], *, options: EvidenceOptions) -> bool:
    """Whether anything must be scored."""
    return any(_is_wanted(r, options) and not r.scored.evidence for group in groups for r in group.candidates)


def _is_wanted(ranked: RankedCandidate, options: EvidenceOptions) -> bool:
    return ranked.rank <= options.top_n and ranked.scored.logit is not None  # None: pruned by the cascade


def _search(
    searches: dict[int, _Search],
    scorer: Scorer,
    *,
    enough: Callable[[ScoredCandidate, float], bool],
    tagged: bool,
) -> tuple[dict[int, Evidence | None], int]:
    """Rounds over all units at once: first each sentence alone, then longer and longer selections."""
    done: dict[int, Evidence | None] = {}
    each = [(key, (number,)) for key, search in searches.items() for number in range(len(search.sentences))]
    logits, inputs = _score(searches, each, scorer, tagged=tagged)
    for key, search in searches.items():
        own = {n: logit for n in range(len(search.sentences)) if (logit := logits[key, (n,)]) is not None}
        order = sorted(own, key=lambda number: -own[number])  # stable: the earlier of equal ones
        searches[key] = search._replace(order=order, taken=1)
        if not order:
            done[key] = None
    current = {key: logits[key, search.selection()] for key, search in searches.items() if key not in done}
    while current:
        longer: list[Selected] = []
        for key, logit in current.items():
            search = searches[key]
            if logit is None:
                done[key] = None
            elif search.taken == len(search.order) or enough(search.scored, logit):
                done[key] = Evidence(search.selection(), logit)
            else:
                searches[key] = search._replace(taken=search.taken + 1)
                longer.append((key, searches[key].selection()))
        logits, more = _score(searches, longer, scorer, tagged=tagged)
        inputs += more
        current = {key: logits[key, numbers] for key, numbers in longer}
    return done, inputs


def _enough(scored: ScoredCandidate, logit: float, *, keep_share: float, calibration: Calibration) -> bool:
    assert scored.logit is not None
    return not keep_share or calibration(logit) >= keep_share * calibration(scored.logit)


def _score(
    searches: dict[int, _Search],
    selected: Sequence[Selected],
    scorer: Scorer,
    *,
    tagged: bool,
) -> tuple[dict[Selected, float | None], int]:
    """The logit of each selection of a unit's sentences (None: it cannot be scored), and how many were scored.

    A selection that is the whole text has the unit's own logit: that input was scored already.
    """
    logits: dict[Selected, float | None] = {}
    pairs: dict[Selected, Pair] = {}
    for key, numbers in selected:
        search = searches[key]
        if len(numbers) == len(search.sentences):
            logits[key, numbers] = search.scored.logit
            continue
        text = " ".join(search.sentences[number] for number in numbers)
        passage = passage_text(search.scored.candidate.title, text)
        rendered = render(search.query, passage, search.scored.tags if tagged else None)
        pairs[key, numbers] = (rendered.query, rendered.passage)
    outcome = score_checked(scorer, list(pairs.values()))
    logits.update(zip(pairs, outcome.logits, strict=True))
    return logits, len(set(pairs.values()))
