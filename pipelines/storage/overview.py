"""The runs of an output folder in a row each, from their manifests alone."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pipelines.storage.plan_records import plan_dates, read_plan
from pipelines.storage.pointer import served_until
from pipelines.storage.runs import HELD, latest, read_manifest, run_ids
from schemas.errors import ManifestError
from schemas.manifest import Manifest

State = Literal["latest", "published", "superseded", "rolled back", "held", "damaged"]
"""latest: named by latest.json. superseded: another run of its date was published later. rolled back: it was served,
but an older run is now. damaged: its manifest cannot be read."""


@dataclasses.dataclass(frozen=True)
class RunRow:
    """One run. What its manifest does not say is None."""

    run_date: str
    run_id: str
    state: State
    created_at: str = ""  # UTC, when it was published or held
    queries: int | None = None  # with a list, stale ones included
    stale: int | None = None  # of these, with the list of an earlier night
    pairs: int | None = None  # of tonight's lists
    fresh: int | None = None  # scored by this run
    reused: int | None = None
    pruned: int | None = None
    ndcg_at_10: float | None = None  # of judged queries, 0 to 1
    bm25_ndcg_at_10: float | None = None
    drift: str | None = None  # ok, warn or hold
    seconds: float | None = None
    bytes: int | None = None  # of the tables' files
    problem: str = ""  # why it is damaged
    kept: str = ""  # what keeps it from retention, as the last night that cleaned up found it


def list_runs(output: str) -> list[RunRow]:
    """Every published and held run, the newest first.

    Raises:
        OutputError: the folder has the layout of an earlier version.
    """
    rows, published = list[RunRow](), list[Manifest]()
    for held, top in ((False, "runs"), (True, HELD)):
        for run_date, run_id in run_ids(output, top=top):
            try:
                manifest = read_manifest(output, run_date, run_id, held=held)
            except ManifestError as error:
                rows.append(RunRow(run_date, run_id, "damaged", problem=str(error)))
                continue
            if held:
                rows.append(_row(manifest, "held"))
            else:
                published.append(manifest)
    try:
        served = latest(output)
    except ManifestError:
        served = None
    was_served = set(served_until(output))
    rows += [_row(manifest, _state(manifest, published, served, was_served)) for manifest in published]
    kept = _kept(output)
    rows = [dataclasses.replace(row, kept=kept.get(row.run_id, "")) for row in rows]
    return sorted(rows, key=lambda row: (row.run_date, row.created_at, row.run_id), reverse=True)


def _kept(output: str) -> dict[str, str]:
    """What the newest record of a step `clean_up` says that names runs, by their ids."""
    for run_date in reversed(plan_dates(output)):
        step = read_plan(output, run_date).step("clean_up")
        if step and step.state == "done":
            found = step.result.get("kept", {})
            return {str(run_id): str(why) for run_id, why in found.items()} if isinstance(found, dict) else {}
    return {}


def _state(
    manifest: Manifest, published: list[Manifest], served: Manifest | None, was_served: set[str]
) -> State:
    if served and manifest.run_id == served.run_id:
        return "latest"
    if served and manifest.run_id in was_served and _order(manifest) > _order(served):
        return "rolled back"
    same_date = (other for other in published if other.run_date == manifest.run_date)
    return "superseded" if max(same_date, key=_order) is not manifest else "published"


def _order(manifest: Manifest) -> tuple[str, str, str]:
    return manifest.run_date, manifest.created_at, manifest.run_id


def _row(manifest: Manifest, state: State) -> RunRow:
    queries, pairs = manifest.balance.queries, manifest.balance.pairs
    fresh, reused, pruned = (pairs.get(name, 0) for name in ("published", "reused", "pruned"))
    measures = manifest.metrics.get("document") or next(iter(manifest.metrics.values()), {})
    return RunRow(
        manifest.run_date,
        manifest.run_id,
        state,
        created_at=manifest.created_at,
        queries=manifest.balance.lists,
        stale=queries.get("stale", 0),
        pairs=fresh + reused + pruned,
        fresh=fresh,
        reused=reused,
        pruned=pruned,
        ndcg_at_10=measures.get("after nDCG@10"),
        bm25_ndcg_at_10=measures.get("before nDCG@10"),
        drift=manifest.drift.get("verdict") if manifest.drift else None,
        seconds=manifest.seconds,
        bytes=sum(info.bytes for info in manifest.tables.values()),
    )
