"""The embedded BM25 index: tantivy in a folder, built from a corpus, read through memory maps.

Processes on one machine share its memory pages, so each may open the index for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tantivy

from pipelines.sources.local import analysis
from pipelines.sources.local.corpus_files import (
    CorpusPassage,
    LineError,
    corpus_file,
    corpus_lines,
    parse_passage,
)
from rerank_core.errors import SourceError, is_panic
from rerank_core.text import fingerprint, shorten
from schemas.parsing import parse_json
from schemas.records import Document

INDEX_FORMAT = 2  # raise it with every change of what is stored, or of `analysis`
METADATA = "nightrank_index.json"  # written last: a folder without it is not an index
REJECTED = "rejected.jsonl"
_TANTIVY = "tantivy"
_WRITER_BYTES = 256_000_000
_PROGRESS_EVERY = 1_000
_SAMPLE_LINES = 1_000  # of the corpus, by which its language is recognised


class IndexReport(NamedTuple):
    """The result of `build_index`."""

    documents: int
    rejected: dict[str, int]  # reason -> lines; each line is in rejected.jsonl
    fingerprint: str  # of the indexed documents, their order, the format and the language
    path: Path
    language: str  # as given, or as recognised


def build_index(
    corpus: Path, to: Path, *, language: str = "auto", on_progress: Callable[[int], None] | None = None
) -> IndexReport:
    """Index a corpus for BM25.

    Lines that cannot be used (bad_json, no_id, bad_field, empty, and duplicate_id after the first) do not stop the
    build: they are counted, and written with their reasons to `to`/rejected.jsonl. Memory: about 100 bytes per
    document for the duplicate check, and 256 MB for the writer.

    Args:
        corpus: JSONL of {_id, title?, text, sentences?}, or a BEIR folder, which holds a corpus.jsonl.
        to: the index's folder. An index there is replaced once the new one is complete; a build that is interrupted
            leaves it as it was (and a hidden ".NAME.*.building" folder next to it).
        language: one of `analysis.LANGUAGES`: the stemmer and the stop words. "auto": that of a sample of the corpus.
        on_progress: called from time to time, and at the end, with how many more lines were read.

    Raises:
        SourceError: no such corpus or language, no document in it can be used, or `to` cannot be written or is
            something else.
    """
    analysis.check_language(language)
    corpus, to = corpus_file(Path(corpus)), Path(to).absolute()
    _check_target(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".building", dir=to.parent))
    except OSError as error:
        raise SourceError(f"cannot write the index to {to}: {error.strerror}; give another folder") from None
    try:
        building.chmod(0o755)  # mkdtemp's folders are private
        if language == "auto":
            language = analysis.detect(_sample(corpus))
        report = _fill(corpus, building, language=language, on_progress=on_progress or (lambda lines: None))
        _move_into_place(building, to)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return report._replace(path=to)


def _check_target(to: Path) -> None:
    if not to.exists():
        return
    if not to.is_dir():
        raise SourceError(f"{to} is a file; give a new folder, or the folder of a Nightrank index")
    if any(to.iterdir()) and not (to / METADATA).is_file():
        problem = f"{to} is neither empty nor a Nightrank index (it has no {METADATA})"
        raise SourceError(f"{problem}; nothing was changed: give another folder")


def _move_into_place(building: Path, to: Path) -> None:
    old = building.with_suffix(".replaced")
    if to.exists():
        to.rename(old)
    building.rename(to)
    shutil.rmtree(old, ignore_errors=True)


def _sample(corpus: Path) -> list[str]:
    """Title and text of some passages, drawn from the whole corpus, since it may be sorted by language."""
    draw, lines = random.Random(0), list[bytes]()  # a reservoir: every line is kept with the same probability
    for number, line in enumerate(corpus_lines(corpus)):
        if number < _SAMPLE_LINES:
            lines.append(line)
        elif (at := draw.randrange(number + 1)) < _SAMPLE_LINES:
            lines[at] = line
    texts = []
    for line in lines:
        with contextlib.suppress(LineError):
            passage = parse_passage(line, seen=set())
            texts.append(f"{passage.title}\n{passage.text}")
    return texts


def _schema() -> tantivy.Schema:
    """Terms are made by `analysis`, so tantivy finds them between spaces; what is shown is stored apart from them."""
    builder = tantivy.SchemaBuilder()
    for name in ("title", "text"):  # the title's terms are in both
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
    builder.add_bytes_field("passage", stored=True)
    return builder.build()


def _fill(corpus: Path, folder: Path, *, language: str, on_progress: Callable[[int], None]) -> IndexReport:
    """Write an index into the empty `folder`, its metadata last."""
    (folder / _TANTIVY).mkdir()
    index, analyzer = tantivy.Index(_schema(), path=str(folder / _TANTIVY)), analysis.Analyzer(language)
    digest = hashlib.sha256(f"{INDEX_FORMAT} {language}".encode())
    seen: set[str] = set()
    rejected: Counter[str] = Counter()
    first_problem, line_number = "", 0
    with (
        _writing(index) as writer,
        (folder / REJECTED).open("w", encoding="utf-8") as rejects,
    ):
        for line_number, line in enumerate(corpus_lines(corpus), start=1):
            if line_number % _PROGRESS_EVERY == 0:
                on_progress(_PROGRESS_EVERY)
            try:
                passage = parse_passage(line, seen=seen)
            except LineError as problem:
                reason, detail = problem.reason, problem.detail
                rejected[reason] += 1
                first_problem = first_problem or f"line {line_number}: {reason}: {detail}"
                record = {"record": f"{corpus.name}:{line_number}", "reason": reason, "detail": detail}
                rejects.write(json.dumps(record, ensure_ascii=True) + "\n")
                continue
            seen.add(passage.doc_id)
            digest.update(fingerprint(*passage[:3], *passage.sentences).encode())
            writer.add_document(_to_tantivy(passage, analyzer))
    if not seen:
        cause = first_problem or "it is empty"
        raise SourceError(f"{corpus}: none of its {line_number} lines holds a document; {cause}")
    on_progress(line_number % _PROGRESS_EVERY)
    report = IndexReport(len(seen), dict(sorted(rejected.items())), digest.hexdigest(), folder, language)
    _write_metadata(folder, report)
    return report


@contextlib.contextmanager
def _writing(index: tantivy.Index) -> Iterator[tantivy.IndexWriter]:
    """A writer that commits at the end, and waits for its threads, also if the block fails.

    Otherwise they would still write into the folder while it is removed, and it would remain.
    """
    # One thread: with several, the order of the documents in the index would change from build to build.
    writer = index.writer(heap_size=_WRITER_BYTES, num_threads=1)
    try:
        yield writer
        writer.commit()
    finally:
        writer.wait_merging_threads()


def _write_metadata(folder: Path, report: IndexReport) -> None:
    metadata = {
        "format": INDEX_FORMAT,
        "documents": report.documents,
        "fingerprint": report.fingerprint,
        "tantivy": tantivy.__version__,
        "language": report.language,
    }
    with (folder / METADATA).open("w", encoding="utf-8") as out:
        json.dump(metadata, out, indent=2)
        out.flush()
        os.fsync(out.fileno())


def _to_tantivy(passage: CorpusPassage, analyzer: analysis.Analyzer) -> tantivy.Document:
    title = analyzer.of_document(passage.title)
    document = tantivy.Document()
    document.add_text("title", " ".join(title))
    document.add_text("text", " ".join([*title, *analyzer.of_document(passage.text)]))
    document.add_bytes("passage", json.dumps(passage, ensure_ascii=False).encode())
    return document


class LocalIndex:
    """An index that `build_index` made, open for searching; threads may share it.

    Raises:
        SourceError: the folder is missing, is not a Nightrank index, has another format, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        metadata = _read_metadata(self.path)
        self.fingerprint: str = metadata["fingerprint"]
        self.documents: int = metadata["documents"]
        self.language: str = metadata["language"]
        with _damage_told(self.path):
            index = tantivy.Index.open(str(self.path / _TANTIVY))
            index.config_reader("manual")  # the folder is replaced whole, never changed: nothing to watch
            self._schema, self._searcher = index.schema, index.searcher()
        if self._searcher.num_docs != self.documents:
            problem = f"it holds {self._searcher.num_docs} documents, {METADATA} says {self.documents}"
            raise SourceError(_damaged(self.path, problem))
        self._analyzer = analysis.Analyzer(self.language)

    def search(
        self, texts: Sequence[str], *, top_k: int, title_boost: float = 1.5, ignore_stop_words: bool = True
    ) -> list[list[Document]]:
        """The best documents of each text, best first; [] if no word of the text is in the index.

        A text is only words: there is no query syntax to escape, and a word counts once. The score is BM25(title and
        text) + (title_boost - 1) * BM25(title), summed over the words (k1 1.2, b 0.75) and rounded to 4 decimals;
        ties are in the order of doc_id.

        Args:
            texts: the queries.
            top_k: how many documents of each.
            title_boost: weight of a word in the title relative to one in the text, at least 1.
            ignore_stop_words: whether the language's stop words count only in a text that has no other words.
        """
        if title_boost < 1:
            raise ValueError(f"title_boost is {title_boost}; it must be at least 1")
        words = [self._analyzer.of_query(text, ignore_stop_words=ignore_stop_words) for text in texts]
        with _damage_told(self.path):
            return [self._search_one(one, top_k=top_k, title_boost=title_boost) for one in words]

    def _search_one(self, words: Sequence[str], *, top_k: int, title_boost: float) -> list[Document]:
        if not words:
            return []
        query = self._query(words, title_boost=title_boost)
        limit = top_k + 8
        while True:
            result = self._searcher.search(query, limit, count=False)
            # Rounded, since another build of the index may sum a document's terms in another order.
            hits = [(round(score, 4), at) for score, at in result.hits]
            # tantivy breaks ties by position in the index. To cut at top_k by doc_id, all documents that tie with the
            # last one are needed: fetch until a lower score is seen, or nothing is left.
            if len(hits) < limit or hits[-1][0] < hits[top_k - 1][0]:
                break
            limit *= 4
        if len(hits) > top_k:
            hits = [hit for hit in hits if hit[0] >= hits[top_k - 1][0]]
        best = sorted((-score, *self._stored(at)) for score, at in hits)[:top_k]
        return [
            Document(doc_id, title, body, tuple(sentences), bm25_score=-negated, bm25_rank=rank)
            for rank, (negated, doc_id, title, body, sentences) in enumerate(best, start=1)
        ]

    def _query(self, words: Sequence[str], *, title_boost: float) -> tantivy.Query:
        weights = {"text": 1.0} | ({"title": title_boost - 1} if title_boost > 1 else {})
        clauses = []
        for word in words:
            for field, weight in weights.items():
                term = tantivy.Query.term_query(self._schema, field, word, index_option="freq")
                clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(term, weight)))
        return tantivy.Query.boolean_query(clauses)

    def _stored(self, at: tantivy.DocAddress) -> tuple[str, str, str, list[str]]:
        doc_id, title, text, sentences = json.loads(bytes(self._searcher.doc(at).get_first("passage")))
        return doc_id, title, text, sentences


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Raise a SourceError for what tantivy raises over a damaged index: errors, and panics, which are no Exception."""
    try:
        yield
    except (ValueError, OSError, LookupError) as error:
        raise SourceError(_damaged(path, shorten(str(error)))) from None
    except BaseException as error:
        if not is_panic(error):
            raise
        raise SourceError(_damaged(path, shorten(str(error)))) from None


def _damaged(path: Path, problem: str) -> str:
    return f"the index {path} is damaged: {problem}; {_rebuild(path)}"


def _rebuild(path: Path) -> str:
    return f"rebuild with: nightrank index CORPUS --to {path}"


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise SourceError(f"no index at {path}; build one with: nightrank index CORPUS --to {path}")
    try:
        metadata: Any = parse_json((path / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(
            f"{path} is not a Nightrank index: it has no {METADATA}; {_rebuild(path)}"
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(_damaged(path, f"{METADATA}: {error}")) from None
    if not isinstance(metadata, dict):
        raise SourceError(_damaged(path, f"{METADATA} is not a JSON object"))
    version = metadata.get("format")
    if version != INDEX_FORMAT:
        problem = f"the index {path} has format {version!r}, this version reads {INDEX_FORMAT}"
        raise SourceError(f"{problem}; {_rebuild(path)}")
    if not isinstance(metadata.get("documents"), int) or not isinstance(metadata.get("fingerprint"), str):
        raise SourceError(_damaged(path, f"{METADATA} lacks 'documents' or 'fingerprint'"))
    if metadata.get("language") not in analysis.LANGUAGES:
        raise SourceError(_damaged(path, f"{METADATA} has the unknown language {metadata.get('language')!r}"))
    return metadata
