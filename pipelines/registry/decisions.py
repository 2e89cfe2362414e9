"""The log of decisions, one file each: decisions/<number>-<action>-<model>.json, `bundled` for the model that ships.

The name says what a night needs, so that one listing replaces a request for each file, and a file that is damaged still
says which model it was about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import TypeAdapter

from pipelines.registry.entry import Action, Decision, from_json, to_json
from pipelines.storage import filesystem
from pipelines.storage.filesystem import join
from rerank_core.errors import RegistryError

DECISIONS = "decisions"
NAME = re.compile(r"([0-9]{6,})-([a-z_]+)-([0-9]{8}-[0-9a-f]{12}|bundled)\.json")
DAMAGED = "the file of this decision is damaged"
ACTIONS = frozenset(TypeAdapter(Action).json_schema()["enum"])


class Named(NamedTuple):
    """A decision, as the name of its file has it."""

    number: int
    action: Action
    model: str  # "" is the model that ships
    path: str

    @property
    def decision(self) -> Decision:
        """What is left of one whose file is damaged."""
        return Decision(self.number, "", self.action, self.model, DAMAGED)


class Log(NamedTuple):
    """Decisions, the oldest first, and a line for each file that is damaged."""

    made: list[Decision]
    problems: list[str]


def named(registry: str) -> list[Named]:
    """Every decision in the folder, the oldest first; other files are left out."""
    found = []
    for path in filesystem.files(join(registry, DECISIONS), "*.json"):
        parts = NAME.fullmatch(path.rpartition("/")[2])
        if parts and parts[2] in ACTIONS:
            model = "" if parts[3] == "bundled" else parts[3]
            found.append(Named(int(parts[1]), parts[2], model, path))  # type: ignore[arg-type]
    return sorted(found)


def read(wanted: Iterable[Named], *, last: Decision | None, since: str = "") -> Log:
    """Read decisions from the newest back; one whose file is damaged is what its name says.

    Args:
        wanted: which, the oldest first.
        last: the pointer's, which may not be logged yet, or whose file is damaged.
        since: stop at one that was made before, a date or time in UTC.
    """
    log = Log([], [])
    for one in reversed(list(wanted)):
        try:
            remedy = "remove it: it is a record, which no night needs"
            decision = from_json(Decision, filesystem.read_bytes(one.path), path=one.path, remedy=remedy)
        except RegistryError as error:
            log.problems.append(str(error))
            decision = last if last and last.number == one.number else one.decision
        if decision.at and decision.at < since:
            break
        log.made.append(decision)
    if last and last.at >= since and last not in log.made:  # killed before it was logged
        log.made.append(last)
    return Log(sorted(log.made, key=lambda decision: (decision.number, decision.at)), log.problems[::-1])


def write(registry: str, decision: Decision) -> Decision:
    """Log a decision, if it is not yet."""
    path = join(registry, DECISIONS, decision.name)
    if not filesystem.exists(path):
        filesystem.write_bytes(path, to_json(decision), durable=True)
    return decision
