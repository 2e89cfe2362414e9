"""Which runs of an output folder are kept, and the removal of the others."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.storage.clean import clean
from pipelines.storage.filesystem import files, join, remove
from pipelines.storage.lock import lock
from pipelines.storage.plan_records import PLANS
from pipelines.storage.pointer import served_until
from pipelines.storage.publish import remove_run
from pipelines.storage.runs import HELD, RUNS, held_path, latest, read_manifest, run_ids, run_path, utc
from rerank_core.config.operation import Retention
from rerank_core.errors import output_error
from schemas.errors import ManifestError


class StoredRun(NamedTuple):
    """A run in the output folder, as far as retention looks at it."""

    run_date: datetime.date
    created_at: datetime.datetime  # UTC, when it was published or held
    run_id: str


def remove_old_runs(
    output: str,
    retention: Retention,
    *,
    run_date: datetime.date,
    keep: frozenset[str],
    now: datetime.datetime,
) -> list[str]:
    """Remove the published runs, held runs and records of plans that retention does not keep, under the lock.

    A run goes in one step, so that a kill leaves whole runs; what the tables show of its date goes with the next
    cleaning, which is done here too. A run whose manifest is damaged is neither counted nor removed.

    Args:
        run_date: that of the night after which this is done.
        keep: ids of runs that something names: a model's lineage, an alias.
        now: with a time zone.

    Returns:
        Ids of the removed runs, the oldest first.

    Raises:
        ManifestError: `latest.json` is damaged, so the served run is unknown.
        Locked, OutputError: the output folder cannot be written now.
    """
    if not (retention.keep_runs or retention.keep_days):
        return []
    with lock(output, f"retention of {run_date}") as held:
        old = _old_in(output, retention, run_date=run_date, keep=keep, now=now)
        try:
            for path in old.values():
                held.check()
                remove_run(output, path)
            _remove_plans(output)
            if old:
                clean(output)
        except OSError as error:
            raise output_error(
                error,
                f"cannot remove old runs from {output}: {error}; see to the disk and its permissions; what is left "
                "goes with the next night",
            ) from None
        return list(old)


def _old_in(
    output: str,
    retention: Retention,
    *,
    run_date: datetime.date,
    keep: frozenset[str],
    now: datetime.datetime,
) -> dict[str, str]:
    """Paths of the runs of an output folder that go, by id."""
    served = latest(output)
    published, held = _stored(output, RUNS), _stored(output, HELD)
    day = _last_day(published, run_date, now)
    paths = {}
    if served:  # without a pointer, it is unknown which run is
        keep |= {served.run_id}
        for run in old_runs(published, retention, day=day, now=now, keep=keep, left=served_until(output)):
            paths[run.run_id] = run_path(run.run_date.isoformat(), run.run_id)
    for run in old_runs(held, retention, day=day, now=now, keep=keep, left={}):
        paths[run.run_id] = held_path(run.run_date.isoformat(), run.run_id)
    return paths


def old_runs(
    runs: Sequence[StoredRun],
    retention: Retention,
    *,
    day: datetime.date,
    now: datetime.datetime,
    keep: frozenset[str],
    left: Mapping[str, datetime.datetime],
) -> list[StoredRun]:
    """The runs that retention does not keep, the oldest first: beyond the number or the days, and out of the grace.

    Args:
        day: the last day of `keep_days`.
        keep: ids of runs that stay whatever their age.
        left: when `latest.json` stopped naming a run, by id.
    """
    grace = datetime.timedelta(hours=retention.grace_hours)
    newest_first = sorted(runs, reverse=True)
    found = []
    for place, run in enumerate(newest_first):
        beyond = bool(retention.keep_runs) and place >= retention.keep_runs
        beyond |= bool(retention.keep_days) and (day - run.run_date).days >= retention.keep_days
        if beyond and run.run_id not in keep and now - _superseded(run, runs, left) >= grace:
            found.append(run)
    return found[::-1]


def _superseded(
    run: StoredRun, runs: Sequence[StoredRun], left: Mapping[str, datetime.datetime]
) -> datetime.datetime:
    """The last moment at which a reader may have begun with a run as the newest one, of all or of its date."""
    later = [other for other in runs if other.created_at > run.created_at]
    same_date = [other for other in later if other.run_date == run.run_date]
    ends = [min(other.created_at for other in group) for group in (later, same_date) if group]
    return max(run.created_at, *ends, left.get(run.run_id, run.created_at))


def _last_day(
    published: Sequence[StoredRun], run_date: datetime.date, now: datetime.datetime
) -> datetime.date:
    """The day from which `keep_days` counts back: tonight's, unless it is far from the night before.

    After a pause, or where the clock or a date was wrong, one night removes nothing by its date: that night's owner
    sees it first.
    """
    others = [run.run_date.toordinal() for run in published if run.run_date != run_date]
    days = [run_date.toordinal(), now.astimezone(datetime.UTC).toordinal()]
    return datetime.date.fromordinal(min(*days, max(others, default=days[0]) + 1))


def _stored(output: str, top: str) -> list[StoredRun]:
    found = []
    for run_date, run_id in run_ids(output, top=top):
        try:
            manifest = read_manifest(output, run_date, run_id, held=top == HELD)
            found.append(
                StoredRun(datetime.date.fromisoformat(run_date), utc(manifest.created_at), manifest.run_id)
            )
        except (ManifestError, ValueError, OverflowError):
            continue
    return found


def _remove_plans(output: str) -> None:
    """Remove the records and pages of plans from before the oldest run that is left."""
    oldest = min(run_ids(output) + run_ids(output, top=HELD), default=("", ""))[0]
    for path in files(join(output, PLANS), "run_date=*"):
        if path.rpartition("/")[2].removeprefix("run_date=") < oldest:
            remove(path)
