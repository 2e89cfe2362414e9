"""Texts as the network reads them; what never changes of them is computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.questions import SetPassage
from rerank_core.features.render import passage_text, render
from rerank_core.scoring.backends.bi_encoder_folder import SentenceFolder, SingleEncoder
from rerank_core.text import fingerprint

AT_ONCE = 4096  # tokens, padding included


class Text(NamedTuple):
    """A query or a passage, as a night renders it."""

    side: Literal["query", "passage"]
    text: str


def query_text(query: str) -> Text:
    return Text("query", render(query, "").query)


def passage_side(passage: SetPassage) -> Text:
    return Text("passage", render("", passage_text(passage.title, passage.text)).passage)


class States:
    """Of each text, the states after the frozen layers (float16) and the untrained network's vector.

    They are in files, computed once, also over several runs.

    Args:
        folder: where the files are kept.
        texts: every text that the other methods may be called with.
        tower: untrained.
        encoder: makes rows of texts.
        settings: of the base's folder, for its prompts.
    """

    def __init__(
        self,
        folder: Path,
        texts: Iterable[Text],
        *,
        tower: Tower,
        encoder: SingleEncoder,
        settings: SentenceFolder,
    ) -> None:
        self._tower, self._place = tower, {text: n for n, text in enumerate(dict.fromkeys(texts))}
        prompts = {"query": settings.query, "passage": settings.passage}
        prompted = [prompts[text.side] + text.text for text in self._place]
        self._rows = [row.ids for row, _ in encoder.encode(prompted)]
        self._offset = np.concatenate([[0], np.cumsum([len(row) for row in self._rows])])
        weights = tower.layers[0].attention.self.query.weight
        key = fingerprint(str(tower.frozen), str(weights.double().sum().item()), *map(str, self._rows))[:12]
        folder.mkdir(parents=True, exist_ok=True)
        self._states = _array(
            folder / f"states_{key}.npy", (int(self._offset[-1]), weights.shape[1]), np.float16
        )
        self._vectors = _array(folder / f"vectors_{key}.npy", (len(self._rows), weights.shape[1]), np.float32)
        self._done = _array(folder / f"done_{key}.npy", (len(self._rows),), np.bool_)

    def compute(self, *, on_progress: Callable[[int, int], None] = lambda done, texts: None) -> None:
        """Compute what an earlier run has not; afterwards everything else only reads."""
        missing = np.flatnonzero(~self._done)
        missing = missing[np.argsort([len(self._rows[n]) for n in missing], kind="stable")]
        start = 0
        while start < len(missing):
            size = max(1, AT_ONCE // len(self._rows[missing[min(start + 63, len(missing) - 1)]]))
            chosen = missing[start : start + min(size, 64)]
            ids, mask = _padded([self._rows[n] for n in chosen])
            with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
                hidden = self._tower.lower(ids, mask)
                vectors = self._tower.upper(hidden, mask)
            for n, states in zip(chosen, hidden.half().numpy(), strict=True):
                self._states[self._offset[n] : self._offset[n + 1]] = states[: len(self._rows[n])]
            self._vectors[chosen] = vectors.float().numpy()
            self._done[chosen] = True
            start += len(chosen)
            on_progress(start, len(missing))

    def get(self, texts: Sequence[Text], *, limit: int = 10_000) -> tuple[torch.Tensor, torch.Tensor]:
        """States float32 [texts, tokens, hidden] and mask bool [texts, tokens], of at most `limit` tokens each.

        Raises:
            KeyError: a text that the constructor was not given.
        """
        spans = [(self._offset[n], self._offset[n + 1]) for n in (self._place[text] for text in texts)]
        spans = [(start, min(end, start + limit)) for start, end in spans]
        longest = max(int(end - start) for start, end in spans)
        states = torch.zeros(len(spans), longest, self._states.shape[1])
        mask = torch.zeros(len(spans), longest, dtype=torch.bool)
        for n, (start, end) in enumerate(spans):
            states[n, : end - start] = torch.from_numpy(np.array(self._states[start:end], np.float32))
            mask[n, : end - start] = True
        return states, mask

    def vectors(self, texts: Sequence[Text]) -> np.ndarray:
        """The untrained network's: float32 [texts, hidden]."""
        return np.asarray(self._vectors[[self._place[text] for text in texts]])

    def length(self, text: Text) -> int:
        """Tokens of a text."""
        return len(self._rows[self._place[text]])


def _padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids int64 [texts, tokens], padded by 0, and their mask bool [texts, tokens]."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = row
    mask = np.arange(ids.shape[1])[None, :] < np.array([len(row) for row in rows])[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """An array in a file, the one that is there if there is one."""
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
