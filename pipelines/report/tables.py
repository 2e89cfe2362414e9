"""What a page shows of smaller tables and of the manifest: negatives, dead letters, counts, times, settings."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.report.sample import Run, read_rows, sample
from pipelines.report.text import legible, message
from rerank_core.config.night import Config, to_dict
from rerank_core.text import fingerprint
from schemas.manifest import Manifest

NEGATIVES, EXAMPLES = 6, 2
NEGATIVE_ROWS = 100_000  # that the negatives are drawn from
_TEXT = 280  # characters of a passage


class Negative(NamedTuple):
    """A mined negative with its positive."""

    rule: str
    query: str
    positive: str
    positive_logit: float
    negative: str
    negative_logit: float
    rank: int
    margin: float
    label_source: str


def negatives(run: Run, *, texts: bool) -> list[Negative]:
    """Some hard negatives of each rule, drawn by the hash of their ids; the same run gives the same ones."""
    drawn: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    names = [
        *("query_id", "query", "positive_id", "positive_logit", "negative_id", "negative_logit"),
        *("negative_rank", "margin", "kept_by", "label_source"),
        *(("positive", "negative") if texts else ()),
    ]
    for n, row in enumerate(read_rows(sample(run, "hard_negatives", max_rows=NEGATIVE_ROWS).files, names)):
        key = fingerprint(row["query_id"], row["positive_id"], row["negative_id"])
        heap = drawn.setdefault(row["kept_by"], [])
        # The smallest hashes are kept: the heap's first entry is the largest of them, by its complement.
        entry = ("".join(f"{15 - int(digit, 16):x}" for digit in key[:16]), n, row)
        if len(heap) < NEGATIVES:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    each = max(1, NEGATIVES // max(1, len(drawn)))
    return [
        _negative(rule, row, texts=texts)
        for rule, heap in sorted(drawn.items())
        for _, _, row in sorted(heap, reverse=True)[:each]
    ]


def _negative(rule: str, row: Mapping[str, Any], *, texts: bool) -> Negative:
    positive, negative = ("positive", "negative") if texts else ("positive_id", "negative_id")
    return Negative(
        rule,
        legible(row["query"]),
        legible(row[positive], _TEXT),
        row["positive_logit"],
        legible(row[negative], _TEXT),
        row["negative_logit"],
        row["negative_rank"],
        row["margin"],
        row["label_source"],
    )


class Letters(NamedTuple):
    """The dead letters of a reason."""

    stage: str
    reason: str
    records: int
    examples: list[tuple[str, str]]  # (record, detail)


def dead_letters(run: Run) -> list[Letters]:
    """Dead letters by stage and reason, the most first, with the first examples of each."""
    examples: dict[str, list[tuple[str, str]]] = {}
    for row in read_rows(sample(run, "dead_letters").files, ["stage", "reason", "record", "detail"]):
        shown = examples.setdefault(f"{row['stage']}/{row['reason']}", [])
        if len(shown) < EXAMPLES:
            shown.append((legible(row["record"], 80), message(row["detail"], 300)))
    found = sorted(run.manifest.rejected.items(), key=lambda item: (-item[1], item[0]))
    letters = []
    for key, records in found:
        stage, _, reason = key.partition("/")
        letters.append(Letters(legible(stage), legible(reason), records, examples.get(key, [])))
    return letters


class Outcome(NamedTuple):
    """What became of some records."""

    name: str
    records: int


class Balanced(NamedTuple):
    """One line of the funnel."""

    unit: str
    read: int
    outcomes: list[Outcome]

    @property
    def balances(self) -> bool:
        return self.read == sum(outcome.records for outcome in self.outcomes)


OUTCOMES = {
    "kept": "kept",
    "outside_window": "outside of the window",
    "below_min_count": "asked too rarely (log.min_count)",
    "below_min_users": "of too few users (privacy.min_users)",
    "capped": "beyond one user's share",
    "rejected": "dead letters",
    "published": "published",
    "reused": "published with last night's score",
    "pruned": "published unscored (pruned by the cascade)",
    "below_top_n": "below ranking.top_n",
    "stale": "keep an earlier list",
    "not_reached": "not reached before the deadline",
}


def balance(manifest: Manifest) -> list[Balanced]:
    """The counts of a night; what is zero is left out."""
    lines = []
    for unit in ("events", "queries", "pairs"):
        counts: dict[str, int] = getattr(manifest.balance, unit)
        names = OUTCOMES | ({"published": "published with a score of tonight"} if unit == "pairs" else {})
        found = [
            Outcome(names.get(key, key.replace("_", " ")), number)
            for key, number in counts.items()
            if key != "read" and number
        ]
        lines.append(Balanced(unit, counts.get("read", 0), sorted(found, key=lambda one: -one.records)))
    return lines


STAGES = {
    "ReadQueryLog": "Read the query log",
    "FetchCandidates": "Fetch candidates from the index",
    "TagFeatures": "Tag the passages",
    "WritePassageTags": "Write what was read in passages",
    "ReuseScores": "Look up last night's scores",
    "PruneCandidates": "Prune by the first-stage model",
    "ScoreCandidates": "Score with the model",
    "RankCandidates": "Rank",
    "FindEvidence": "Find evidence sentences",
    "WriteReranked": "Write the lists",
    "MineHardNegatives": "Mine hard negatives",
    "WriteHardNegatives": "Write hard negatives",
    "WriteDeadLetters": "Write dead letters",
}


class StageTime(NamedTuple):
    """The time of a stage, summed over the workers."""

    name: str
    seconds: float
    records: int  # in


def times(manifest: Manifest) -> list[StageTime]:
    """Stages that took time, in their order."""
    return [
        StageTime(STAGES.get(name, name), tally["seconds"], int(tally.get("in", 0)))
        for name, tally in sorted(manifest.stages.items(), key=lambda item: _place(item[0]))
        if "seconds" in tally
    ]


def _place(stage: str) -> tuple[int, str]:
    order = list(STAGES)
    return (order.index(stage) if stage in order else len(order)), stage


class Setting(NamedTuple):
    """A key that differs from its default."""

    key: str
    value: str
    default: str


def settings(manifest: Manifest) -> list[Setting]:
    """The keys of a run's configuration that differ from the default, in the order of the configuration."""
    defaults = dict(_leaves(to_dict(Config())))
    found = []
    for key, value in _leaves(manifest.config):
        default = defaults.get(key)
        if value != default:
            found.append(Setting(legible(key, 80), _shown(value), _shown(default)))
    order = list(defaults)
    return sorted(found, key=lambda one: order.index(one.key) if one.key in defaults else len(order))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value and f"{prefix}{name}" not in ("log.filter",):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return message(str(value), 200) if value not in ("", [], {}) else "(empty)"
