"""The registry: a folder, local or of an object store, of models with their lineage.

    models/<id>/model/...       a model's folder, never changed
    models/<id>/entry.json      its lineage and the checksums of its files; a model without it is not there
    serving.json                which model serves, and the decision that made it
    decisions/<n>-....json      what was decided, one file a decision
    evaluations/<id>.json       what a candidate was measured at (pipelines.promotion)
    _lock, _adding-...          while something changes

One model serves at most, whatever is killed: `serving.json` is changed by one write, which holds the decision too, and
states are derived from it and from the decisions.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pipelines
from pipelines.registry import decisions as logged
from pipelines.registry.entry import Action, Decision, Entry, Lineage, Pointer, from_json, to_json, with_state
from pipelines.registry.lineage import read_lineage
from pipelines.registry.model_files import (
    ENTRY,
    MODELS,
    clean_additions,
    files_fingerprint,
    model_files,
    model_ids,
    put_model,
)
from pipelines.storage import filesystem
from pipelines.storage.filesystem import join
from pipelines.storage.lock import Lock, lock
from rerank_core.errors import RegistryError

POINTER = "serving.json"


class Registry:
    """A registry of models. Reading needs no lock; every method that changes something takes it."""

    def __init__(self, path: str) -> None:
        self.path = path

    # --- reading

    def entries(self) -> list[Entry]:
        """All models, the newest first, with their states.

        Raises:
            RegistryError: an entry or the pointer is damaged.
        """
        pointer, decisions = self._pointer(), self.decisions()
        found = [with_state(self._entry(name), pointer, decisions) for name in self._ids()]
        return sorted(found, key=lambda entry: (entry.created, entry.id), reverse=True)

    def entry(self, model: str) -> Entry:
        """One model.

        Raises:
            RegistryError: there is none of this id, or its entry is damaged.
        """
        return with_state(self.stored(model), self._pointer(), self.decisions())

    def stored(self, model: str) -> Entry:
        """One model as it is stored, without its state: no decision is read.

        Raises:
            RegistryError: as `entry`.
        """
        if model not in (known := self._ids()):
            raise RegistryError(
                f"no model {model!r:.60} in the registry {self.path}; it has: {', '.join(known) or 'none'}"
            )
        return self._entry(model)

    def serving(self) -> Entry | None:
        """The model that serves, its history as the pointer has it; None: the model that ships with Nightrank does.

        Raises:
            RegistryError: the pointer is damaged, or names a model that is not there.
        """
        pointer = self._pointer()
        if not (pointer and pointer.model):
            return None
        return with_state(self.stored(pointer.model), pointer, [pointer.decision])

    def candidates(self) -> list[Entry]:
        """The models that nothing was decided about, the newest first, from the names of the decisions.

        Raises:
            RegistryError: the entry of one, or the pointer, is damaged.
        """
        pointer = self._pointer()
        decided = {one.model for one in logged.named(self.path)}
        decided |= {pointer.model, pointer.decision.model, pointer.decision.previous} if pointer else set()
        found = [self._entry(name) for name in self._ids() if name not in decided]
        return sorted(found, key=lambda entry: (entry.created, entry.id), reverse=True)

    def decisions(self, *, since: str = "") -> list[Decision]:
        """Every decision, the oldest first; one whose file is damaged is what its name says.

        Args:
            since: leave out those before one that was made earlier than this date or time, UTC.
        """
        return self.log(since=since).made

    def log(self, *, since: str = "") -> logged.Log:
        """As `decisions`, with a line for each file that is damaged."""
        pointer = self._pointer()
        return logged.read(logged.named(self.path), last=pointer.decision if pointer else None, since=since)

    def known(self) -> dict[str, str]:
        """Ids of the models, by fingerprint."""
        return {self._entry(name).fingerprint: name for name in self._ids()}

    def lineage_runs(self) -> dict[str, str]:
        """The runs that the registry's models were trained on, which retention keeps: the last model of each, by id."""
        return {run.run_id: name for name in self._ids() for run in self._entry(name).lineage.runs}

    def model_path(self, model: str) -> str:
        """Path of a model's folder in the registry."""
        return join(self.path, MODELS, model, "model")

    # --- changing

    def add(self, folder: Path | str, lineage: Lineage | None = None) -> Entry:
        """Copy a model's folder into the registry, as a candidate; one with equal files is not added again.

        Args:
            folder: of the model.
            lineage: where it comes from; by default as its training.json says.

        Raises:
            RegistryError: no model's folder, or an unfinished training.
            OutputError, Locked: the registry cannot be written, or is being changed.
        """
        folder = Path(folder).expanduser()
        files = model_files(folder)
        identity = files_fingerprint(files)
        with self._locked("add") as held:
            clean_additions(self.path, self._ids())
            known = self.known()
            if identity in known:
                return self.entry(known[identity])
            lineage = lineage or read_lineage(folder, known)
            now = _now()
            entry = Entry(
                id=f"{now[:10].replace('-', '')}-{identity[:12]}",
                created=now,
                fingerprint=identity,
                files=files,
                lineage=lineage,
                nightrank_version=pipelines.__version__,
            )
            put_model(self.path, folder, entry, check=held.check)
            return self.entry(entry.id)

    def promote(
        self,
        model: str,
        *,
        reason: str,
        checks: Sequence[dict[str, Any]] = (),
        forced: bool = False,
        run_date: str = "",
        over: str | None = None,
    ) -> Decision:
        """Let a model serve. If it does already, nothing changes, and its decision is returned.

        Args:
            over: the model that must serve until then, "" for the one that ships; None: whichever does.

        Raises:
            RegistryError: no such model, or another one serves than `over`.
        """
        with self._locked("promote") as held:
            self.entry(model)
            pointer = self._pointer()
            if pointer and pointer.model == model:
                return pointer.decision
            served = pointer.model if pointer else ""
            if over not in (None, served):
                raise RegistryError(
                    f"model {model} was measured against {over or 'the model that ships'}, but "
                    f"{served or 'the model that ships'} serves now; start the promotion again"
                )
            before = (*pointer.before, pointer.model) if pointer else ("",)
            decision = self._decision(
                "promoted", model, reason, checks=tuple(checks), forced=forced, run_date=run_date
            )
            return self._point(held, pointer, Pointer(model, before, decision))

    def rollback(self, *, reason: str) -> Decision:
        """Let the model serve that did before the one that serves now, but for models that were removed.

        Raises:
            RegistryError: none did.
        """
        with self._locked("rollback") as held:
            pointer = self._pointer()
            there = {*self._ids(), ""}
            before = tuple(model for model in pointer.before if model in there) if pointer else ()
            if not before:
                raise RegistryError(f"no model served before in {self.path}: there is nothing to go back to")
            decision = self._decision("rolled_back", before[-1], reason)
            return self._point(held, pointer, Pointer(before[-1], before[:-1], decision))

    def decide(
        self,
        action: Action,
        model: str,
        *,
        reason: str,
        checks: Sequence[dict[str, Any]] = (),
        run_date: str = "",
    ) -> Decision:
        """Log that a model is rejected, or that a candidate is retired. Said twice for one reason, it is logged once.

        Raises:
            RegistryError: no such model, or it serves.
        """
        assert action in ("rejected", "retired"), action
        with self._locked(action):
            if self.entry(model).state == "serving":
                raise RegistryError(
                    f"model {model} serves, and cannot be {action}; let another one serve first"
                )
            made = [one for one in logged.named(self.path) if (one.action, one.model) == (action, model)]
            same = [decision for decision in logged.read(made, last=None).made if decision.reason == reason]
            if same:
                return same[-1]
            decision = self._decision(action, model, reason, checks=tuple(checks), run_date=run_date)
            return logged.write(self.path, decision)

    def remove(self, model: str, *, reason: str = "removed") -> None:
        """Remove a model that is retired; its decisions stay.

        Raises:
            RegistryError: no such model, or it serves, is a candidate, or is the one to go back to.
        """
        with self._locked("remove"):
            entry, pointer = self.entry(model), self._pointer()
            if entry.state != "retired" or (pointer and pointer.before[-1:] == (model,)):
                why = entry.state if entry.state != "retired" else "the one to go back to"
                raise RegistryError(f"model {model} is {why}; only a retired one is removed")
            logged.write(self.path, self._decision("removed", model, reason))
            filesystem.remove(join(self.path, MODELS, model, ENTRY))  # first: it is not there without
            filesystem.remove(join(self.path, MODELS, model))

    # --- files

    @contextlib.contextmanager
    def _locked(self, what: str) -> Iterator[Lock]:
        with lock(self.path, f"registry {what}") as held:
            yield held

    def _ids(self) -> list[str]:
        return model_ids(self.path)

    def _entry(self, name: str) -> Entry:
        path = join(self.path, MODELS, name, ENTRY)
        remedy = "remove its folder, or restore it"
        entry = from_json(Entry, filesystem.read_bytes(path), path=path, remedy=remedy)
        if entry.id != name:
            raise RegistryError(f"{path} is the entry of another model, {entry.id}; {remedy}")
        return entry

    def _pointer(self) -> Pointer | None:
        path = join(self.path, POINTER)
        data = filesystem.read_if_any(path)
        if data is None:
            return None
        remedy = "choose the model by nightrank promote --model ID --force, after removing the file"
        return from_json(Pointer, data, path=path, remedy=remedy)

    def _decision(self, action: Action, model: str, reason: str, **fields: Any) -> Decision:
        known, pointer = logged.named(self.path), self._pointer()
        number = 1 + max(known[-1].number if known else 0, pointer.decision.number if pointer else 0)
        served = pointer.model if pointer and action in ("promoted", "rolled_back") else ""
        return Decision(number, _now(), action, model, reason, previous=served, **fields)

    def _point(self, held: Lock, old: Pointer | None, new: Pointer) -> Decision:
        """Change the pointer by one write; the decision that it held is in the log before."""
        if old:
            logged.write(self.path, old.decision)
        held.check()
        filesystem.write_bytes(join(self.path, POINTER), to_json(new), durable=True)
        return logged.write(self.path, new.decision)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
