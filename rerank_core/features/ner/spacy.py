"""Named entities by a spaCy pipeline: the small one that ships with Nightrank, or any that is installed.

The pipeline that ships is a tagger over BIO tags. It runs without the rest of spaCy's machinery, embeds each spelling
once per batch, and its output is decoded as sequences (its README has the figures). Any other pipeline runs as spaCy
runs it, reduced to the components that its `ner` needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.features.ner import LABELS, pieces
from rerank_core.features.ner.bio import TAGS, best_sequences
from rerank_core.text import fingerprint
from schemas.records import Mention

IMPLEMENTATION = "spacy/2"
"""Raise with every change that can alter a mention."""

SHIPPED = Path(__file__).parents[2] / "models" / "entities"

MOST_STRINGS = 1_000_000
"""Strings after which a pipeline is loaded anew: spaCy stores every spelling it ever saw (100 bytes or more each)."""

MAPPED = {
    **{label: label for label in LABELS},
    **dict.fromkeys(("PERSON", "per"), "PER"),
    **dict.fromkeys(("GPE", "FAC"), "LOC"),
    **dict.fromkeys(("NORP", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"), "MISC"),
}
"""A pipeline's label -> one of LABELS. Other labels (dates, times, numbers, money) are dropped."""

_FOR_NER = {"tok2vec", "transformer", "curated_transformer", "ner", "beam_ner", "entity_ruler", "span_ruler"}
_EMBEDDING = ["extract_features>>list2ragged>>with_array", "with_array", "ragged2list"]  # with word vectors
_NO_EFFECT = {".pyc", ".md"}  # files that cannot alter a mention


class SpacyRecogniser:
    """A `Recogniser` over one spaCy pipeline, loaded at the first passage.

    Safe to share between threads, which take turns. It is pickled without the pipeline.
    """

    def __init__(self, name_or_folder: str | None = None, *, batch_size: int = 128) -> None:
        """
        Args:
            name_or_folder: an installed pipeline ("en_core_web_sm") or a folder that spaCy wrote; None: the
                pipeline that ships with Nightrank.
            batch_size: passages that go through the network together; changes speed and memory only.

        Raises:
            MissingEngine: spaCy is not installed.
            ModelError: no such pipeline.
            ValueError: `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch needs at least 1 passage")
        if importlib.util.find_spec("spacy") is None:
            raise MissingEngine(
                "tags.recogniser = 'spacy' needs spaCy, which is not installed: pip install spacy, or set another "
                "recogniser"
            )
        self._folder = _folder_of(name_or_folder)
        self._batch_size = batch_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the pipeline's files (its name and version are in them) and this implementation."""
        return fingerprint(IMPLEMENTATION, _content(self._folder))

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions of each passage's text; the title is not read.

        Raises:
            ModelError: the pipeline cannot be loaded, or has no component that finds entities.
        """
        origins: list[tuple[int, int]] = []  # passage and offset of each piece
        texts: list[str] = []
        for i, (_, text) in enumerate(passages):
            for start, end in pieces.cut(text):
                origins.append((i, start))
                texts.append(text[start:end])
        mentions: list[list[Mention]] = [[] for _ in passages]
        opened = _opened(str(self._folder))
        for (i, offset), spans in zip(origins, opened.spans(texts, self._batch_size), strict=True):
            text = passages[i][1]
            for start, end, label in spans:
                start, end = start + offset, end + offset
                mentions[i].append(Mention(text[start:end], label, start, end))
        return [tuple(of_passage) for of_passage in mentions]


Span = tuple[int, int, str]  # start and end in characters, one of LABELS


class _Opened:
    """A loaded pipeline, of which a process has one for each folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._nlp: Any = None
        self._most_strings = 0

    def spans(self, texts: Sequence[str], batch_size: int) -> list[list[Span]]:
        """Entities of each text."""
        sizes = [pieces.words(text) for text in texts]
        spans: list[list[Span]] = []
        with self._lock:
            for batch in pieces.groups(sizes, most=pieces.MOST_WORDS, rows=batch_size):
                nlp = self._pipeline()
                find = spans_of_tagger if _is_bio_tagger(nlp) else _spans_of_pipeline
                spans += find(nlp, [texts[i] for i in batch])
        return spans

    def _pipeline(self) -> Any:
        if self._nlp is None or len(self._nlp.vocab.strings) > self._most_strings:
            self._nlp = None  # or there would be two
            self._nlp = _load(self._folder)
            self._most_strings = len(self._nlp.vocab.strings) + MOST_STRINGS
        return self._nlp


@lru_cache(maxsize=4)
def _opened(folder: str) -> _Opened:
    return _Opened(Path(folder))


def _load(folder: Path) -> Any:
    import spacy

    try:
        config = spacy.util.load_config(folder / "config.cfg")
        names: list[str] = config["nlp"]["pipeline"]
        factories = {name: config["components"][name].get("factory", "") for name in names}
        if {"ner", "beam_ner"} & set(factories.values()):
            names = [name for name in names if factories[name] in _FOR_NER]
        nlp = spacy.load(folder, exclude=[name for name in factories if name not in names])
    except Exception as error:  # spaCy raises what its parts raise
        raise ModelError(
            f"spaCy cannot load {folder}: {type(error).__name__}: {error}. If it was made for another version of "
            "spaCy, `python -m spacy validate` says so"
        ) from error
    if not nlp.pipe_names:
        raise ModelError(f"the pipeline in {folder} has no components; take a pipeline with `ner`")
    nlp.max_length = max(nlp.max_length, 2 * pieces.LONGEST)
    if _is_bio_tagger(nlp):
        tagger: Any = nlp.get_pipe("tagger")
        _embed_once(tagger.model, nlp.vocab.vectors)
    return nlp


def _is_bio_tagger(nlp: Any) -> bool:
    """Whether this is a pipeline that `pipelines.recipes.entities` made, unchanged."""
    if nlp.pipe_names != ["tagger", "entity_ruler"]:
        return False
    return set(nlp.get_pipe("tagger").labels) == set(TAGS) and len(nlp.get_pipe("entity_ruler")) == len(
        LABELS
    )


def _spans_of_pipeline(nlp: Any, texts: Sequence[str]) -> list[list[Span]]:
    return [
        [(e.start_char, e.end_char, MAPPED[e.label_]) for e in doc.ents if e.label_ in MAPPED]
        for doc in nlp.pipe(texts, batch_size=len(texts))
    ]


def spans_of_tagger(nlp: Any, texts: Sequence[str]) -> list[list[Span]]:
    """Entities of each text by a BIO tagger, decoded as sequences.

    The pipeline's own ruler goes by each word's best tag alone. Sequences are right more often, and decoding the
    network's output costs less than writing tags into documents for the ruler to match.
    """
    tagger: Any = nlp.get_pipe("tagger")
    docs = [nlp.make_doc(text) for text in texts]
    answers = tagger.model.predict(docs)
    order = [tagger.labels.index(tag) for tag in TAGS]
    best = best_sequences([answer[:, order] for answer in answers])
    entities = []
    for doc, tags in zip(docs, best, strict=True):
        spans: list[Span] = []
        for at in tags.nonzero()[0].tolist():
            prefix, _, label = TAGS[tags[at]].partition("-")
            token = doc[at]
            end = token.idx + len(token)
            if prefix == "I":
                spans[-1] = (spans[-1][0], end, label)
            else:
                spans.append((token.idx, end, label))
        entities.append(spans)
    return entities


def _embed_once(model: Any, vectors: Any) -> None:
    """Make the network embed each spelling once per batch: words repeat, and embedding is half the work.

    The vectors stay the same. An embedding that another version of spaCy builds differently is left as it is.
    """
    import numpy as np
    from thinc.api import Model
    from thinc.types import Ragged

    ragged: Any = Ragged  # numpy's arrays are not thinc's to mypy
    layers: list[Any] = model.get_ref("tok2vec").get_ref("embed").layers
    if [layer.name.split("(")[0] for layer in layers] != _EMBEDDING:
        return
    (features, _, hashes), static = layers[0].layers[0].layers, layers[0].layers[1]
    columns = [*features.attrs["columns"], vectors.attr]
    projected = static.ops.gemm(vectors.data, static.get_param("W"), trans2=True)
    projected = np.vstack([projected, np.zeros_like(projected[:1])])  # row -1, of words without a vector

    def forward(unique: Any, docs: Any, is_train: bool) -> tuple[Any, Any]:
        rows = np.concatenate([doc.to_array(columns) for doc in docs])
        keys = rows[:, 0].copy()
        for column in rows.T[1:]:  # uint64, which wraps: a hash of each row
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + column
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        size = np.array([len(first)], np.int32)
        hashed, _ = unique.layers[0](ragged(np.ascontiguousarray(rows[first, :-1]), size), False)
        known = projected[vectors.find(keys=rows[first, -1])]
        mixed, _ = unique.layers[1](ragged(np.hstack([hashed.dataXd, known]), size), False)
        return ragged(mixed.dataXd[inverse], np.array([len(doc) for doc in docs], np.int32)), None

    layers[:2] = [Model("each_once", forward, layers=[hashes, layers[1]])]


def _folder_of(name: str | None) -> Path:
    """The folder of a pipeline's files."""
    if name is None:
        candidates = [SHIPPED]
    elif (folder := Path(name)).is_dir():
        candidates = [folder]
    elif name.isidentifier() and (spec := importlib.util.find_spec(name)) and spec.submodule_search_locations:
        package = Path(spec.submodule_search_locations[0])
        candidates = [package, *sorted(package.glob(f"{name}-*"))]
    else:
        raise ModelError(
            f"no spaCy pipeline {name!r}: neither a folder nor an installed package. Install it "
            f"(`python -m spacy download {name}`) or leave tags.recogniser_model empty for the pipeline that ships "
            "with Nightrank"
        )
    for folder in candidates:
        if (folder / "config.cfg").is_file() and (folder / "meta.json").is_file():
            return folder.resolve()
    raise ModelError(f"{candidates[0]} is no spaCy pipeline: config.cfg or meta.json is missing")


def _content(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_file() and path.suffix not in _NO_EFFECT:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
