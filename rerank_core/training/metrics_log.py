"""The log of a training's figures: figures.jsonl, one JSON object per line. A resumed training reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from schemas.parsing import parse_json

Line = dict[str, Any]


class Mirror(Protocol):
    """Receives the same lines, such as `rerank_core.training.board.Board`, which needs torch."""

    def start(self, lines: list[Line]) -> None:
        """Replace all lines by these."""

    def add(self, line: Line) -> None:
        """Append a line."""


class MetricsLog:
    """Lines {"kind", "stage", "step", ...} of a file, in order.

    kind is "loss" (loss, lr, epoch), "dev" (a dev set's measures after an epoch; best: whether its weights were kept),
    "stage" (a stage is done: its figures, and those of the first stage's dev set), "mined" (where a later round's
    negatives come from) or "round" (a round is done). Step 0 of the first stage is the untrained model. `board`
    receives the same lines.
    """

    def __init__(self, path: Path, *, board: Mirror | None = None) -> None:
        self._path, self._board = path, board
        self.lines: list[Line] = []
        if path.exists():
            # The last line of a killed training may be incomplete.
            complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
            self.lines = [parse_json(line) for line in complete.splitlines()]
        if board:
            board.start(self.lines)

    def add(self, kind: str, stage: str, step: int, **values: Any) -> Line:
        """Write a line and return it."""
        line = {"kind": kind, "stage": stage, "step": step, **values}
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            self._board.add(line)
        return line

    def of(self, kind: str, stage: str = "") -> list[Line]:
        """The lines of a kind, of one stage or of all."""
        return [line for line in self.lines if line["kind"] == kind and stage in ("", line["stage"])]

    def once(self, kind: str, stage: str, step: int, **values: Any) -> Line | None:
        """Write a line unless the stage has one of this kind, from before the training was resumed."""
        return None if self.of(kind, stage) else self.add(kind, stage, step, **values)

    def rewind(self, stage: str, step: int) -> None:
        """Remove a stage's lines after a step, from which it is resumed."""
        kept = [
            line
            for line in self.lines
            if line["stage"] != stage
            or line["kind"] == "mined"
            or (line["step"] <= step and line["kind"] not in ("stage", "round"))
        ]
        if self._board and kept != self.lines:
            self._board.start(kept)
        self.lines = kept
        building = self._path.with_name(f"_{self._path.name}")
        building.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        os.replace(building, self._path)
