"""Serving an older run again."""

from __future__ import annotations

import logging

from pipelines.storage.clean import clean
from pipelines.storage.filesystem import join
from pipelines.storage.lock import lock
from pipelines.storage.pointer import point
from pipelines.storage.runs import RUNS, check_output, check_run, find_run, latest, read_manifest, run_ids
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from schemas.manifest import Manifest

logger = logging.getLogger(__name__)


def rollback(output: str, run_id: str = "") -> Manifest:
    """Let `latest.json` name an older run, if it is whole. The next night of its date or a later one moves it on.

    Args:
        run_id: the run to serve; "" is the one before the current one, by date and then by time of publication.

    Returns:
        The manifest of the run that is served now.

    Raises:
        ManifestError: there is no such run, it is damaged, or latest.json is missing or damaged; nothing was changed.
        Locked, OutputError: the output folder cannot be written now.
        NightError: the disk refuses it.
    """
    check_output(output)
    with lock(output, "rollback") as held:
        clean(output)
        manifest = find_run(output, run_id) if run_id else _before(output)
        check_run(output, manifest)
        held.check()
        try:
            point(output, manifest)
        except OSError as error:
            raise NightError(
                f"latest.json could not be written to {output}: {error.strerror or error}; see to the disk, and roll "
                "back again"
            ) from None
        return manifest


def _before(output: str) -> Manifest:
    try:
        current = latest(output)
    except ManifestError as error:
        raise ManifestError(f"{error}; or name the run to serve with --run-id") from None
    if current is None:
        raise ManifestError(
            f"nothing is served from {output}: it has no latest.json; name a run with --run-id"
        )
    older = [run for run in run_ids(output) if run[0] <= current.run_date and run[1] != current.run_id]
    found, damaged = list[Manifest](), list[str]()
    for date in sorted({run_date for run_date, _ in older}, reverse=True):
        for run in (run for run in older if run[0] == date):
            try:
                manifest = read_manifest(output, *run)
            except ManifestError as error:  # it cannot be served; which run was before it is still known
                damaged.append(str(error))
                logger.warning("%s; it is passed over", error)
                continue
            if (date, manifest.created_at) < (current.run_date, current.created_at):
                found.append(manifest)
        if found:
            return max(found, key=lambda manifest: manifest.created_at)
    raise ManifestError(
        f"no run before {current.run_id} of {current.run_date} is left under {join(output, RUNS)}; name one with "
        "--run-id" + "".join(f"; left out: {problem}" for problem in damaged)
    )
