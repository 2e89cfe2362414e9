"""Candidates from a bi-encoder: every passage of a corpus is embedded once and searched exactly.

FOLDER/passages.arrow   the passages in the corpus's order, memory-mapped
FOLDER/vectors.npy      their vectors, float32 [passages, width], memory-mapped
FOLDER/corpus.json      description and counts; written last: with it, a resumed training embeds nothing again
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from pipelines.sources.local.corpus_files import LineError, corpus_lines, parse_passage
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from pipelines.train.data import Run
from rerank_core.candidates.dense import DenseIndex
from rerank_core.config.remining import Dense
from rerank_core.errors import SourceError
from rerank_core.features.render import passage_text
from rerank_core.scoring.load import load_scorer
from rerank_core.text import fingerprint
from schemas.parsing import parse_json
from schemas.records import Candidate

if TYPE_CHECKING:
    from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer

_SCHEMA = pa.schema([(name, pa.string()) for name in ("doc_id", "passage_id", "title", "text")])
_CHUNK = 256
_Row = tuple[str, str, str, str]  # as in _SCHEMA


class DenseCandidates:
    """A corpus and the bi-encoder that searches it.

    Args:
        options: the bi-encoder, the corpus and the search.
        folder: where passages and vectors are stored.
        runs: runs whose passages are the corpus if `options.corpus` is "".

    Raises:
        SourceError: no corpus, or an empty one.
        ModelError, MissingEngine: the bi-encoder cannot be used.
    """

    def __init__(self, options: Dense, folder: Path, runs: Iterable[Run]) -> None:
        loaded = load_scorer(
            options.model, backend="bi_encoder", max_length=options.max_length, device=options.device
        )
        scorer = cast("BiEncoderScorer", loaded)
        self._scorer, self._top_k = scorer, options.top_k
        record_path = folder / "corpus.json"
        if not record_path.exists():
            record = _write_passages(options, folder, runs)
            _embed(scorer, folder)
            filesystem.write_bytes(str(record_path), json.dumps(record).encode())
        self.record: dict[str, Any] = parse_json(record_path.read_text(encoding="utf-8"))
        self._passages = _open(folder)
        self._index = DenseIndex(np.load(folder / "vectors.npy", mmap_mode="r"), index=options.index)

    def search(self, queries: Sequence[str]) -> list[list[Candidate]]:
        """The nearest passages of each query, the nearest first; `bm25_rank` is their rank here, `bm25_score` 0."""
        nearest = self._index.nearest(self._scorer.embed(queries, side="query"), top_k=self._top_k)
        return [[self._candidate(int(n), rank) for rank, n in enumerate(row, start=1)] for row in nearest]

    def _candidate(self, number: int, rank: int) -> Candidate:
        chunk = self._passages.get_batch(number // _CHUNK)
        (row,) = chunk.slice(number % _CHUNK, 1).to_pylist()
        return Candidate(**row, bm25_score=0.0, bm25_rank=rank)


def _open(folder: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(folder / "passages.arrow")))


def _write_passages(options: Dense, folder: Path, runs: Iterable[Run]) -> dict[str, Any]:
    """Write the passages, and return their record: name, model, top_k and counts."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    rows = _of_corpus(Path(options.corpus), counts) if options.corpus else _of_runs(runs, counts)
    with pa.OSFile(str(folder / "passages.arrow"), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            columns = [pa.array(column, pa.string()) for column in zip(*chunk, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
            counts["passages"] += len(chunk)
    name = Path(options.corpus).name if options.corpus else "the runs"
    if not counts["passages"]:
        raise SourceError(f"remining.dense: no passage in {name}; name another corpus")
    return {"name": name, "model": Path(options.model).name, "top_k": options.top_k, **counts}


def _of_corpus(corpus: Path, counts: Counter[str]) -> Iterator[_Row]:
    seen: set[str] = set()
    for line in corpus_lines(corpus):
        try:
            passage = parse_passage(line, seen=seen)
        except LineError:
            counts["lines_rejected"] += 1
            continue
        seen.add(passage.doc_id)
        yield passage.doc_id, passage.doc_id, passage.title, passage.text


def _of_runs(runs: Iterable[Run], counts: Counter[str]) -> Iterator[_Row]:
    """Each published passage once, from the first run that has it."""
    seen: set[bytes] = set()
    for output, manifest in runs:
        for path in stored_runs.table_files(output, manifest, "reranked"):
            for row in filesystem.read_table(path, list(_SCHEMA.names)).to_pylist():
                key = bytes.fromhex(fingerprint(row["passage_id"])[:32])
                if key in seen:
                    continue
                seen.add(key)
                if row["text"] is None:
                    counts["without_text"] += 1
                else:
                    yield row["doc_id"], row["passage_id"], row["title"] or "", row["text"]


def _embed(scorer: BiEncoderScorer, folder: Path) -> None:
    """Write the vectors of all passages atomically: the file appears under its name when it is complete."""
    passages, building = _open(folder), folder / "_vectors.npy"
    sizes = [passages.get_batch(n).num_rows for n in range(passages.num_record_batches)]
    vectors, start = None, 0
    for number, size in enumerate(sizes):
        rows = passages.get_batch(number).to_pylist()
        embedded = scorer.embed([passage_text(row["title"], row["text"]) for row in rows], side="passage")
        if vectors is None:
            shape = (sum(sizes), embedded.shape[1])
            vectors = np.lib.format.open_memmap(building, mode="w+", dtype=np.float32, shape=shape)
        vectors[start : start + size] = embedded
        start += size
    assert vectors is not None
    vectors.flush()
    os.replace(building, folder / "vectors.npy")
