"""Which candidates of a query are positives: by clicks, by judgements, or by holding an answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rerank_core.config.night import Labels
from rerank_core.errors import ConfigError
from rerank_core.evaluation.qrels import Opener, by_query_id, open_local, read_qrels, read_queries
from rerank_core.features.names import lower_words
from rerank_core.features.render import passage_text
from rerank_core.text import query_id
from schemas.records import RankedGroup

# Answers made of these alone occur in nearly every passage and prove nothing.
_TELLS_NOTHING = """a an the and or but of in on at to by for from with as is are was were be been it its he
she they we you his her their this that these those not no yes true false"""


class Judgements(NamedTuple):
    """What is known of the night's queries, by Nightrank's query_id; empty where labels come from clicks."""

    qrels: Mapping[str, Mapping[str, int]]  # relevance by doc_id
    answers: Mapping[str, tuple[str, ...]]  # in the form of `words`, usable ones only


NO_JUDGEMENTS = Judgements({}, {})


def load_judgements(config: Labels, *, opener: Opener = open_local) -> Judgements:
    """Read once what `positives` needs for every group.

    Raises:
        ConfigError: a file that `labels.source` needs is not configured, or holds nothing to use.
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
                f"no query of {config.queries} has a usable answer; set labels.source to another"
            )
        return Judgements({}, {name: tuple(found) for name, found in answers.items()})
    if not config.qrels:
        raise ConfigError("labels.source = 'qrels' needs labels.qrels, BEIR's TSV or TREC's qrels")
    qrels = by_query_id(queries, read_qrels(config.qrels, opener=opener))
    if not qrels:
        raise ConfigError(
            f"{config.qrels} judges no query of {config.queries}; are they of one set and split?"
        )
    return Judgements(qrels, {})


def positives(group: RankedGroup, *, config: Labels, judgements: Judgements) -> frozenset[str]:
    """passage_ids of the group's positive candidates; empty where nothing among them is known to be right.

    - "clicks": documents clicked at least `min_clicks` times for this query; with `debias` also of an attraction
      of at least `min_attraction`, see rerank_core.querylog.click_model
    - "qrels": documents of relevance above 0
    - "answers": every unit whose title or text holds an answer as whole words
    """
    if config.source == "answers":
        answers = [f" {answer} " for answer in judgements.answers.get(group.query.query_id, ())]
        return frozenset(
            one.scored.candidate.passage_id
            for one in group.candidates
            if answers and _holds(one.scored.candidate.title, one.scored.candidate.text, answers)
        )
    if config.source == "clicks":
        documents = {doc_id for doc_id, clicks in group.query.clicks if clicks >= config.min_clicks}
        if config.debias:
            documents &= {
                d for d, attraction in group.query.attraction if attraction >= config.min_attraction
            }
    else:
        judged = judgements.qrels.get(group.query.query_id, {})
        documents = {doc_id for doc_id, relevance in judged.items() if relevance > 0}
    # A click or a judgement is of a document, not of each of its sentences. Its best unit is the likeliest
    # reason for it, and the one by which MaxP ranks the document; calling all units positive would teach that
    # a page's footer answers the query. Mining leaves the other units out: neither positive nor negative.
    best: dict[str, str] = {}
    for one in sorted(group.candidates, key=lambda one: one.rank):
        best.setdefault(one.scored.candidate.doc_id, one.scored.candidate.passage_id)
    return frozenset(passage_id for doc_id, passage_id in best.items() if doc_id in documents)


def usable_answers(answers: Iterable[str]) -> tuple[str, ...]:
    """Answers that can be looked for in a text, as `words`: no yes/no, lone character or mere stop words."""
    stop_words = frozenset(_TELLS_NOTHING.split())
    found = dict.fromkeys(words(answer) for answer in answers)
    return tuple(one for one in found if len(one) >= 2 and not stop_words.issuperset(one.split()))


def words(text: str) -> str:
    """`text` as lower-case words joined by single spaces, punctuation gone, Unicode spellings made one."""
    return lower_words(unicodedata.normalize("NFKC", text))


def _holds(title: str, text: str, answers: list[str]) -> bool:
    held = f" {words(passage_text(title, text))} "
    return any(answer in held for answer in answers)
