"""Evidence: the sentences of a passage that speak for it, so that a reader can quote them.

The best sentence is the one that the model scores highest by itself, title and tags beside it as they are beside
the whole passage. With `keep_share`, the next best are added, in the order of the text, until the selection scores
that share of the passage: the fewest that a greedy search finds, not provably the fewest there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rerank_core.candidates import units
from rerank_core.config.night import EvidenceOptions
from rerank_core.features.render import passage_text, render
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import Scorer
from schemas.records import Evidence, RankedCandidate, RankedGroup, ScoredCandidate

Pair = tuple[str, str]


class Found(NamedTuple):
    """Groups with their evidence, and what it took."""

    groups: tuple[RankedGroup, ...]
    wanted: int  # units that are to have evidence
    reused: int  # of these, known from an earlier run
    failed: int  # of these, those that the model could not score: they have none
    inputs: int  # distinct inputs scored


class _Search(NamedTuple):
    """One unit whose evidence is looked for."""

    query: str
    scored: ScoredCandidate
    sentences: list[str]
    order: list[int]  # numbers of the sentences, best first
    taken: int  # how many of them are in the selection

    def selection(self) -> tuple[int, ...]:
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
) -> Found:
    """Give the best `top_n` units of every query their evidence, and the others none.

    Args:
        groups: ranked; candidates may carry evidence from an earlier run, which is kept.
        scorer: the model; None only if `needs_model` says so.
        options: how many units, and how much of their score.
        tagged: whether the model reads the tags.
        calibration: of the model, for shares of a score.
    """
    keep = functools.partial(_enough, keep_share=options.keep_share, calibration=calibration)
    wanted = [(g, r.scored) for g in groups for r in g.candidates if _is_wanted(r, options)]
    known = {id(scored): scored.evidence for _, scored in wanted if scored.evidence}
    open_ones = {
        id(scored): _Search(group.query.text, scored, split(scored.candidate.text), [], 0)
        for group, scored in wanted
        if id(scored) not in known
    }
    searched, inputs = _search(open_ones, scorer, enough=keep, tagged=tagged) if open_ones else ({}, 0)
    failed = sum(evidence is None for evidence in searched.values())
    evidences = known | searched
    found = tuple(
        group._replace(
            candidates=tuple(
                ranked._replace(scored=ranked.scored._replace(evidence=evidences.get(id(ranked.scored))))
                for ranked in group.candidates
            )
        )
        for group in groups
    )
    return Found(found, len(wanted), len(known), failed, inputs)


def needs_model(groups: Sequence[RankedGroup], *, options: EvidenceOptions) -> bool:
    """Whether anything must be scored."""
    return any(_is_wanted(r, options) and not r.scored.evidence for group in groups for r in group.candidates)


def _is_wanted(ranked: RankedCandidate, options: EvidenceOptions) -> bool:
    return ranked.rank <= options.top_n and ranked.scored.logit is not None  # None: pruned by the cascade


def _search(
    searches: dict[int, _Search],
    scorer: Scorer | None,
    *,
    enough: Callable[[ScoredCandidate, float], bool],
    tagged: bool,
) -> tuple[dict[int, Evidence | None], int]:
    """Rounds over all units at once: first each sentence alone, then ever longer selections."""
    assert scorer is not None, "units without evidence need the model"
    done: dict[int, Evidence | None] = {}
    each = [(key, (number,)) for key, one in searches.items() for number in range(len(one.sentences))]
    logits, inputs = _score(searches, each, scorer, tagged=tagged)
    for key, one in searches.items():
        own = {n: logit for n in range(len(one.sentences)) if (logit := logits[key, (n,)]) is not None}
        order = sorted(own, key=lambda number: -own[number])  # stable: of equal ones the earlier
        searches[key] = one._replace(order=order, taken=1)
        if not order:
            done[key] = None
    current = {key: logits[key, one.selection()] for key, one in searches.items() if key not in done}
    while current:
        longer: list[tuple[int, tuple[int, ...]]] = []
        for key, logit in current.items():
            one = searches[key]
            if logit is None:
                done[key] = None
            elif one.taken == len(one.order) or enough(one.scored, logit):
                done[key] = Evidence(one.selection(), logit)
            else:
                searches[key] = one._replace(taken=one.taken + 1)
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
    wanted: Sequence[tuple[int, tuple[int, ...]]],
    scorer: Scorer,
    *,
    tagged: bool,
) -> tuple[dict[tuple[int, tuple[int, ...]], float | None], int]:
    """The logit of each selection of a unit's sentences (None: it cannot be scored), and how many were scored.

    A selection that is the whole text has the unit's own logit: that input was scored already.
    """
    logits: dict[tuple[int, tuple[int, ...]], float | None] = {}
    pairs: dict[tuple[int, tuple[int, ...]], Pair] = {}
    for key, numbers in wanted:
        one = searches[key]
        if len(numbers) == len(one.sentences):
            logits[key, numbers] = one.scored.logit
            continue
        text = " ".join(one.sentences[number] for number in numbers)
        rendered = render(
            one.query, passage_text(one.scored.candidate.title, text), one.scored.tags if tagged else None
        )
        pairs[key, numbers] = (rendered.query, rendered.passage)
    outcome = score_checked(scorer, list(pairs.values()))
    logits.update(zip(pairs, outcome.logits, strict=True))
    return logits, len(set(pairs.values()))
