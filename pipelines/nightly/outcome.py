"""What becomes of a verified run: it is compared with earlier nights, and published or held back."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex

from pipelines.drift.compare import compare
from pipelines.storage.filesystem import join
from pipelines.storage.held import hold
from pipelines.storage.publish import publish
from pipelines.storage.runs import latest
from rerank_core.config.night import Config
from rerank_core.errors import NightError, NightHeld
from schemas.errors import ManifestError
from schemas.manifest import Manifest


def with_drift(config: Config, manifest: Manifest, *, staging: str) -> Manifest:
    """The manifest of a staged run with what differs from earlier nights.

    Raises:
        NightError: a staged file is damaged.
    """
    try:
        return dataclasses.replace(manifest, drift=compare(config.output.path, staging, manifest, config))
    except ManifestError as error:
        raise NightError(f"{error}; start the night again") from None


def publish_or_hold(output: str, manifest: Manifest, *, set_latest: bool) -> Manifest:
    """Publish a verified run from staging, unless it differs too much from earlier nights.

    Returns:
        The manifest as it was published.

    Raises:
        NightHeld: the run was moved to where held runs are kept.
        NightError: the output folder cannot be written.
    """
    if manifest.drift and manifest.drift["verdict"] == "hold":
        raise NightHeld(_message(output, hold(output, manifest), manifest), manifest)
    return publish(output, manifest, set_latest=set_latest)


def _message(output: str, path: str, manifest: Manifest) -> str:
    drift = manifest.drift or {}
    held = sum(measure["verdict"] == "hold" for measure in drift["measures"].values())
    serving = None
    with contextlib.suppress(ManifestError):
        serving = latest(output)
    readers = f"readers keep run {serving.run_id} of {serving.run_date}" if serving else "readers have no run"
    return (
        f"run {manifest.run_id} is whole but was held back: {'; '.join(drift['reasons'][:held])}. It is kept in "
        f"{join(output, path)}, and {readers}. Publish it by: nightrank release {shlex.quote(output)} "
        f"{manifest.run_id}, or change the keys that are named and start the night again"
    )
