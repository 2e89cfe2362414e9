"""Which candidates of a query are positives: by clicks, by judgements, or because they contain an answer.

And which may be relevant by clicks that do not suffice for a positive: they are no negatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rerank_core.config.labels import Labels
from rerank_core.errors import ConfigError
from rerank_core.evaluation.qrels import by_query_id, open_local, read_qrels, read_queries
from rerank_core.features.names import lower_words
from rerank_core.features.render import passage_text
from rerank_core.files import Opener
from rerank_core.text import query_id
from schemas.records import RankedGroup

# Answers that consist of these words occur in nearly every passage.
_STOP_WORDS = """a an the and or but of in on at to by for from with as is are was were be been it its he
she they we you his her their this that these those not no yes true false"""


class Judgements(NamedTuple):
    """Judgements and answers of the night's queries, by Nightrank's query_id; empty if labels come from clicks."""

    qrels: Mapping[str, Mapping[str, int]]  # relevance by doc_id
    answers: Mapping[str, tuple[str, ...]]  # normalised by `lower_words`, usable ones only


NO_JUDGEMENTS = Judgements({}, {})


def load_judgements(config: Labels, *, opener: Opener = open_local) -> Judgements:
    """Read the files that `positives` needs.

    Raises:
        ConfigError: a file that `labels.source` needs is not configured, or has nothing usable.
        JudgementError: a file cannot be read.
    """
    if config.source == "clicks":
        return NO_JUDGEMENTS
    if not config.queries:
        raise ConfigError(f"labels.source = {config.source!r} needs labels.queries, a BEIR queries.jsonl")
    queries = read_queries(config.queries, opener=opener)
    if config.source == "answers":
        answers: dict[str, dict[str, None]] = {}  # a dict keeps the order of queries that are merged
        for query in queries.values():
            if usable := usable_answers(query.answers):
                answers.setdefault(query_id(query.text), {}).update(dict.fromkeys(usable))
        if not answers:
            raise ConfigError(
                f"no query of {config.queries} has a usable answer; set labels.source to 'clicks' or 'qrels'"
            )
        return Judgements({}, {name: tuple(usable) for name, usable in answers.items()})
    if not config.qrels:
        raise ConfigError("labels.source = 'qrels' needs labels.qrels, BEIR's TSV or TREC's qrels")
    qrels = by_query_id(queries, read_qrels(config.qrels, opener=opener))
    if not qrels:
        raise ConfigError(
            f"{config.qrels} judges no query of {config.queries}; name files of the same set and split"
        )
    return Judgements(qrels, {})


def positives(group: RankedGroup, *, config: Labels, judgements: Judgements) -> frozenset[str]:
    """passage_ids of the group's positive candidates; empty if none is known to be relevant.

    - "clicks": documents clicked at least `min_clicks` times for this query; with `debias` also of an attraction
      of at least `min_attraction`, see rerank_core.querylog.click_model
    - "qrels": documents of relevance above 0
    - "answers": every unit whose title or text contains an answer as whole words
    """
    if config.source == "answers":
        answers = [f" {answer} " for answer in judgements.answers.get(group.query.query_id, ())]
        candidates = (ranked.scored.candidate for ranked in group.candidates)
        return frozenset(c.passage_id for c in candidates if answers and _contains(c.title, c.text, answers))
    if config.source == "clicks":
        documents = {doc_id for doc_id, clicks in group.query.clicks if clicks >= config.min_clicks}
        if config.debias:
            documents &= {
                d for d, attraction in group.query.attraction if attraction >= config.min_attraction
            }
    else:
        judged = judgements.qrels.get(group.query.query_id, {})
        documents = {doc_id for doc_id, relevance in judged.items() if relevance > 0}
    # A click or a judgement is about a document, not about each of its sentences. Its best unit is the likeliest
    # reason for it, and the one by which MaxP ranks the document; calling all units positive would teach that
    # a page's footer answers the query. Mining leaves the other units out: neither positive nor negative.
    best: dict[str, str] = {}
    for ranked in sorted(group.candidates, key=lambda ranked: ranked.rank):
        best.setdefault(ranked.scored.candidate.doc_id, ranked.scored.candidate.passage_id)
    return frozenset(passage_id for doc_id, passage_id in best.items() if doc_id in documents)


def doubtful(group: RankedGroup, *, config: Labels) -> dict[str, str]:
    """passage_ids of candidates that are no negatives by what users did with them, each with the rule.

    Of labels by debiased clicks alone; a positive may be among them.

    - "attractive": the document's attraction is above `max_negative_attraction`
    - "rarely_shown": it was shown fewer than `min_impressions` times, with `shown_negatives_only`
    """
    if config.source != "clicks" or not config.debias:
        return {}
    attraction = dict(group.query.attraction)
    rules = {}
    for candidate in (ranked.scored.candidate for ranked in group.candidates):
        if (known := attraction.get(candidate.doc_id)) is None:
            if config.shown_negatives_only:
                rules[candidate.passage_id] = "rarely_shown"
        elif known > config.max_negative_attraction:
            rules[candidate.passage_id] = "attractive"
    return rules


def usable_answers(answers: Iterable[str]) -> tuple[str, ...]:
    """Answers that can be searched in a text, as `lower_words`: no yes/no, single characters or stop words."""
    stop_words = frozenset(_STOP_WORDS.split())
    normalised = dict.fromkeys(lower_words(answer) for answer in answers)
    return tuple(
        answer for answer in normalised if len(answer) >= 2 and not stop_words.issuperset(answer.split())
    )


def _contains(title: str, text: str, answers: list[str]) -> bool:
    padded = f" {lower_words(passage_text(title, text))} "
    return any(answer in padded for answer in answers)
