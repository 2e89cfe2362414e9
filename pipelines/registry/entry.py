"""What a registry keeps of a model and of a decision, as JSON files hold them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT
from rerank_core.errors import RegistryError

State = Literal["candidate", "serving", "retired"]
Action = Literal["promoted", "rejected", "retired", "rolled_back", "removed"]
ModelId = Annotated[str, Field(pattern=r"^[0-9]{8}-[0-9a-f]{12}$")]
BundledOrId = Annotated[str, Field(pattern=r"^([0-9]{8}-[0-9a-f]{12})?$")]  # "" is the model that ships
T = TypeVar("T")


@dataclass(frozen=True, config=STRICT)
class TrainedOn:
    """A published run that a model was trained on."""

    output: str
    run_id: str
    run_date: str = ""


@dataclass(frozen=True, config=STRICT)
class Parent:
    """The model that a training started from."""

    name: str  # as the training names it: a folder, a name on a hub
    model: BundledOrId = ""  # its id, where it is in the registry
    fingerprint: str = ""


@dataclass(frozen=True, config=STRICT)
class Lineage:
    """Where a model comes from; all empty for one that was trained elsewhere."""

    runs: tuple[TrainedOn, ...] = ()
    training: dict[str, Any] | None = None  # its configuration
    parent: Parent | None = None
    figures: tuple[dict[str, Any], ...] = ()  # of its stages: losses, measures, what was forgotten
    run_date: str = ""  # of the night that trained it


@dataclass(frozen=True, config=STRICT)
class StoredFile:
    """One file of a model's folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True, config=STRICT)
class Change:
    """A state that a model came into."""

    state: State
    at: str  # UTC
    reason: str = ""


@dataclass(frozen=True, config=STRICT)
class Entry:
    """One model. `state` and `history` are not stored: they follow from the decisions and the pointer."""

    id: ModelId
    created: str  # UTC
    fingerprint: str  # of all its files
    files: dict[str, StoredFile]  # by path
    lineage: Lineage
    nightrank_version: str
    format: Literal[1] = 1
    state: State = "candidate"
    history: tuple[Change, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Decision:
    """One decision about a model, and its reasons."""

    number: int  # from 1; decisions are ordered by it, whatever the clock said
    at: str  # UTC
    action: Action
    model: BundledOrId
    reason: str
    previous: BundledOrId = ""  # the model that served until then
    forced: bool = False
    checks: tuple[dict[str, Any], ...] = ()  # rerank_core.promotion.rules.Check
    run_date: str = ""

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.number:06d}-{self.action}-{self.model or 'bundled'}.json"


@dataclass(frozen=True, config=STRICT)
class Pointer:
    """Which model serves. The decision is in it, so that one write changes both."""

    model: BundledOrId
    before: tuple[
        BundledOrId, ...
    ]  # those that served before it, to go back to; the last one first to go back to
    decision: Decision
    format: Literal[1] = 1


def to_json(value: Any) -> bytes:
    """A stored value as a readable file, without what is not stored."""
    fields = {k: v for k, v in dataclasses.asdict(value).items() if k not in ("state", "history")}
    return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()


def from_json(kind: type[T], data: bytes, *, path: str, remedy: str) -> T:
    """A stored value of a file.

    Raises:
        RegistryError: naming the file, what is wrong with it, and the remedy.
    """
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise RegistryError(
            f"{path} is no file of a registry, or is damaged ({where}: {first['msg']}); {remedy}"
        ) from None


def with_state(entry: Entry, pointer: Pointer | None, decisions: Sequence[Decision]) -> Entry:
    """The entry with its state, and the history of its states."""
    history = [Change("candidate", entry.created)]
    for decision in decisions:
        if decision.action in ("promoted", "rolled_back") and entry.id in (decision.model, decision.previous):
            serves = decision.model == entry.id
            reason = (
                decision.reason
                if serves
                else f"{decision.model or 'the model that ships'} serves in its place"
            )
            history.append(Change("serving" if serves else "retired", decision.at, reason))
        elif decision.action in ("rejected", "retired") and decision.model == entry.id:
            history.append(Change("retired", decision.at, decision.reason))
    serving = pointer is not None and pointer.model == entry.id
    state: State = "serving" if serving else "candidate" if len(history) == 1 else "retired"
    return dataclasses.replace(entry, state=state, history=tuple(history))
