"""The check between a finished pipeline and its publication: every record is accounted for, by reading the files.

Beam's state "DONE" is no evidence: runners have lost rows and reported it. What was written is counted in the Parquet
files themselves, by the workers or here, and compared with what was read.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from pipelines.nightly.checked import Checked, check, parts, read_reports
from pipelines.nightly.counts import Counts, total
from pipelines.nightly.prepare import Run
from pipelines.nightly.sinks import TALLIES
from pipelines.nightly.stale import REASON, FindLists
from pipelines.storage.filesystem import exists, join, read_bytes
from pipelines.storage.runs import table_path
from rerank_core.config.night import Config
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from schemas.manifest import Balance, TableInfo
from schemas.tables import TABLES, schema_version

Stages = dict[str, dict[str, float]]

NO_CANDIDATES = "FetchCandidates/no_candidates"
"""Stage and reason of the dead letters of queries that found no document."""

NOT_REACHED = f"{FindLists.__name__}/{REASON}"
"""The same of queries that the deadline came before, and that have no earlier list."""


class Verified(NamedTuple):
    """What the files of a finished run hold."""

    stages: Stages
    balance: Balance
    rejected: dict[str, int]  # by "stage/reason"
    tables: dict[str, TableInfo]
    stale: dict[str, int] = {}  # queries that keep an earlier list, by its date  # noqa: RUF012


def verify(run: Run, config: Config) -> Verified:
    """Count what was written and compare it with what was read.

    Raises:
        NightError: nothing was read, records are missing, or too many were rejected.
    """
    path = join(run.staging, TALLIES)
    if not exists(path):
        raise NightError(
            f"the pipeline stopped before its last stage: {path} was not written; start the night again"
        )
    stages: Stages = json.loads(read_bytes(path))
    try:
        staged = read_staged(run)
    except ManifestError as error:
        raise NightError(f"{error}; start the night again") from None
    tables = {name: table_info(run, name, every) for name, every in staged.items()}
    counts = total(checked.counts for every in staged.values() for checked in every.values())
    _check_rows(stages, tables)
    balance = _balance(stages, counts)
    if problems := imbalances(balance):
        raise NightError(problems[0])
    _check_places(tables["queries"], counts)
    _check_content(balance, counts, config)
    return Verified(
        stages, balance, dict(counts.rejected_reasons), tables, dict(sorted(counts.stale.items()))
    )


def table_info(run: Run, name: str, every: dict[str, Checked]) -> TableInfo:
    """Rows and checksums of a staged table, as the manifest holds them.

    Args:
        every: what its files hold, by name.
    """
    path = table_path(name, run.run_date, run.run_id)
    rows = sum(checked.rows for checked in every.values())
    files = {part: checked.info for part, checked in every.items()}
    return TableInfo(path, schema_version(TABLES[name]), rows, files)


def read_staged(run: Run) -> dict[str, dict[str, Checked]]:
    """What each file of each staged table holds, as a worker reported it or as it is read now.

    Raises:
        ManifestError: a file is damaged.
        NightError: one has another schema than its table.
    """
    known = read_reports(run.staging)
    return {
        table: {
            name: known.get((table, name, stamp)) or check(run.staging, table, name)
            for name, stamp in sorted(parts(run.staging, table).items())
        }
        for table in TABLES
    }


def _check_rows(stages: Stages, tables: dict[str, TableInfo]) -> None:
    negatives = stages.get("WriteHardNegatives", {})
    copied = stages.get("CopyLists", {}).get("out", 0)
    written = {
        "reranked": stages.get("WriteReranked", {}).get("out", 0) + copied,
        "hard_negatives": negatives.get("out", 0),
        "training_pairs": negatives.get("training_pairs", 0),
        "passage_tags": stages.get("WritePassageTags", {}).get("out", 0),
        "dead_letters": stages.get("WriteDeadLetters", {}).get("out", 0),
    }
    facts = stages.get("WritePassageTags", {})
    if facts.get("in", 0) != facts.get("out", 0) + facts.get("again", 0):
        raise NightError(
            f"passage_tags: {facts.get('in', 0):.0f} rows were made, but {facts.get('out', 0):.0f} were written and "
            f"{facts.get('again', 0):.0f} were in other shards, too"
        )
    for name, rows in written.items():
        if rows != tables[name].rows:
            raise NightError(f"{name}: {rows:.0f} rows were written, but the files hold {tables[name].rows}")


def _check_places(queries: TableInfo, counts: Counts) -> None:
    """Every query that has rows has one that says where they are."""
    if queries.rows != (published := counts.queries + counts.stale.total()):
        raise NightError(f"queries: {queries.rows} rows for the lists of {published} queries")


def _balance(stages: Stages, counts: Counts) -> Balance:
    log = {key: int(amount) for key, amount in stages.get("ReadQueryLog", {}).items()}
    fetched = stages.get("FetchCandidates", {})
    unusable = ("FetchCandidates/no_text", "FetchCandidates/duplicate_doc_id")
    pairs_read = int(fetched.get("out", 0)) + sum(counts.rejected_reasons[reason] for reason in unusable)
    return Balance(
        events={
            "read": log.get("events_read", 0),
            "kept": log.get("events_kept", 0),
            "outside_window": log.get("events_outside_window", 0),
            "below_min_count": log.get("events_below_min_count", 0),
            "below_min_users": log.get("events_below_min_users", 0),
            "capped": log.get("events_capped", 0),
            "rejected": counts.rejected_units["event"],
        },
        queries={
            "read": int(fetched.get("in", 0)),
            "published": counts.queries,
            "stale": counts.stale.total(),
            "rejected": counts.rejected_units["query"],
        },
        pairs={
            "read": pairs_read,
            "published": counts.fresh,
            "reused": counts.reused,
            "pruned": counts.pruned,
            "below_top_n": int(stages.get("WriteReranked", {}).get("below_top_n", 0)),
            "rejected": counts.rejected_units["pair"],
            "not_reached": int(sum(tally.get("not_reached", 0) for tally in stages.values())),
        },
    )


def imbalances(balance: Balance) -> list[str]:
    """Where the records read are not the sum of what became of them, one line a unit."""
    found = []
    for unit in ("events", "queries", "pairs"):
        counts: dict[str, int] = getattr(balance, unit)
        read = counts.get("read", 0)
        outcomes = {outcome: count for outcome, count in counts.items() if outcome != "read"}
        if read != sum(outcomes.values()):
            listed = " + ".join(f"{outcome} {count}" for outcome, count in outcomes.items())
            found.append(f"{unit} do not balance: {read} read, but {listed} = {sum(outcomes.values())}")
    return found


def _check_content(balance: Balance, counts: Counts, config: Config) -> None:
    events, queries, pairs = balance.events, balance.queries, balance.pairs
    worst = ", ".join(f"{reason} {count}" for reason, count in counts.rejected_reasons.most_common(3))
    if not queries["read"]:
        raise NightError(
            f"the log gave no query: {events['read']} events read, {events['outside_window']} outside the window, "
            f"{events['below_min_count']} below log.min_count, {events['below_min_users']} below "
            f"privacy.min_users, {events['rejected']} rejected"
            f"{f' ({worst})' if worst else ''}; check source.log, --run-date and log.window_days"
        )
    not_reached = counts.rejected_reasons[NOT_REACHED]
    if not queries["published"] and (queries["stale"] or not_reached):
        raise NightError(
            f"the deadline came before any of {queries['read']} queries was reranked; start the night earlier, or set "
            "a later finish_by. The previous run stays in service"
        )
    if not queries["published"]:
        raise NightError(f"none of {queries['read']} queries could be reranked: {worst}")
    # A search without a hit is a fact about the index, not a failure of the night; too many are a wrong index.
    no_hits = counts.rejected_reasons[NO_CANDIDATES]
    limit = config.output.max_no_candidates_share
    if no_hits > limit * queries["read"]:
        raise NightError(
            f"{no_hits} of {queries['read']} queries found no document, more than output.max_no_candidates_share = "
            f"{limit:g} allows; check that the source's index holds these documents, in the queries' language. Their "
            "dead letters are kept in the staging folder"
        )
    failed = {
        "events": events["rejected"],
        "queries": queries["rejected"] - no_hits - not_reached,
        "pairs": pairs["rejected"],
    }
    limit = config.output.max_rejected_share
    for unit, count in failed.items():
        read = getattr(balance, unit)["read"]
        if count > limit * read:
            raise NightError(
                f"{count} of {read} {unit} were rejected ({worst}), more than "
                f"output.max_rejected_share = {limit:g} allows; their dead letters are kept in the staging folder"
            )
