"""The figures of a training, a JSON line each as they come, and the record that a resumed training goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

Line = dict[str, Any]


class Board(Protocol):
    """Shows the same lines elsewhere; `rerank_core.training.board` has one, which needs torch."""

    def start(self, lines: list[Line]) -> None:
        """Hold these lines alone."""

    def add(self, line: Line) -> None:
        """Hold this line too."""


class Figures:
    """Lines {"kind", "stage", "step", ...} of a file, in the order in which they came.

    kind is "loss" (loss, lr, epoch), "dev" (a judged set's measures at the end of an epoch; best: it was kept), "stage"
    (a stage is done: its figures, and those of the first stage's set), "mined" (where a later round's negatives come
    from) or "round" (a round is done). Step 0 of the first stage is the model before any training. A board is told the
    same.
    """

    def __init__(self, path: Path, *, board: Board | None = None) -> None:
        self._path, self._board = path, board
        self.lines: list[Line] = []
        if path.exists():
            # The last line of a killed training may be half a one.
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
            self.lines = [json.loads(line) for line in whole.splitlines()]
        if board:
            board.start(self.lines)

    def add(self, kind: str, stage: str, step: int, **values: Any) -> Line:
        """Write a line, and give it back."""
        line = {"kind": kind, "stage": stage, "step": step, **values}
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            self._board.add(line)
        return line

    def of(self, kind: str, stage: str = "") -> list[Line]:
        """The lines of a kind, or of a stage's."""
        return [one for one in self.lines if one["kind"] == kind and stage in ("", one["stage"])]

    def once(self, kind: str, stage: str, step: int, **values: Any) -> Line | None:
        """Write a line unless the stage has one of this kind already, from before it was resumed."""
        return None if self.of(kind, stage) else self.add(kind, stage, step, **values)

    def rewind(self, stage: str, step: int) -> None:
        """Forget what a stage told beyond a step: it is resumed from there."""
        kept = [
            one
            for one in self.lines
            if one["stage"] != stage
            or one["kind"] == "mined"
            or (one["step"] <= step and one["kind"] not in ("stage", "round"))
        ]
        if self._board and kept != self.lines:
            self._board.start(kept)
        self.lines = kept
        building = self._path.with_name(f"_{self._path.name}")
        building.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        os.replace(building, self._path)
