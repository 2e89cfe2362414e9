"""The named-entity recogniser that ships: a spaCy tagger over BIO tags, trained on a teacher's probabilities.

spaCy's `ner` component processes words one by one and takes twice the time of the tagger, which labels all words of a
batch at once (figures in the model card). It also trains on hard labels only, while this loop uses probabilities.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spacy
from spacy.language import Language
from spacy.strings import StringStore
from spacy.tokens import Doc
from spacy.vectors import Vectors
from thinc.api import Adam, NumpyOps, set_dropout_rate

from rerank_core.features.ner import LABELS
from rerank_core.features.ner.bio import TAGS
from rerank_core.features.ner.spacy import spans_of_tagger

BEGINS = np.array([TAGS.index(f"B-{label}") for label in LABELS])
INSIDES = np.array([TAGS.index(f"I-{label}") for label in LABELS])

_NO_SPACE_BEFORE = re.compile(r" (?=[.,;:!?)\]%]|'s\b|n't\b|'(?:re|ve|ll|d|m)\b)")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\[$]) ")


DESCRIBED = ("name", "version", "description", "license")  # fields of meta.json


class Lesson(NamedTuple):
    """A text with the probabilities of its words' tags."""

    text: str
    starts: np.ndarray  # int32 [words]: position of each word, in characters
    p: np.ndarray  # float32 [words, TAGS]; zeros for a word without a label


class StudentSpec(NamedTuple):
    """How a student is trained."""

    epochs: int = 2
    batch: int = 2000  # words
    rate: float = 2e-3
    end_rate: float = 1e-4
    dropout: float = 0.1
    caseless: float = 0.1  # share of texts in lower case, as queries are typed
    seed: int = 7


def joined(words: Sequence[str], *, tight: bool = False) -> tuple[str, np.ndarray]:
    """(the words joined by spaces, position of each); `tight`: without spaces that prose does not have."""
    text = " ".join(words)
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).astype(np.int32)
    if not tight:
        return text, starts
    dropped = sorted({m.start() for p in (_NO_SPACE_BEFORE, _NO_SPACE_AFTER) for m in p.finditer(text)})
    skip = set(dropped)
    prose = "".join(c for at, c in enumerate(text) if at not in skip)
    return prose, (starts - np.searchsorted(dropped, starts)).astype(np.int32)


def targets(doc: Doc, lesson: Lesson) -> np.ndarray:
    """The target probabilities of each token: float32 [tokens, TAGS].

    A token that begins inside a word (spaCy splits at hyphens, the annotation does not) continues its entity.
    """
    at = np.array([token.idx for token in doc], np.int64)
    word = np.maximum(np.searchsorted(lesson.starts, at, side="right") - 1, 0)
    rows: np.ndarray = lesson.p[word].copy()
    inner = np.flatnonzero(at > lesson.starts[word])
    rows[np.ix_(inner, INSIDES)] += rows[np.ix_(inner, BEGINS)]
    rows[np.ix_(inner, BEGINS)] = 0.0
    rows[[token.is_space for token in doc]] = np.eye(1, len(TAGS), dtype=np.float32)
    return rows


def blank_student(config: Path, vectors: Vectors | None = None) -> Language:
    """The untrained pipeline: the tagger, and the ruler that turns its tags into entities.

    `vectors`: the word vectors, if the configuration includes static vectors.
    """
    nlp = spacy.util.load_model_from_config(spacy.util.load_config(config), auto_fill=True)
    if vectors is not None:
        vectors.strings = StringStore()  # otherwise the strings of another pipeline would be included
        nlp.vocab.vectors = vectors
    tagger: Any = nlp.get_pipe("tagger")
    for tag in TAGS:
        tagger.add_label(tag)
    sample = [Doc(nlp.vocab, words=["Paris", "."])]
    tagger.model.initialize(X=sample, Y=[np.zeros((2, len(TAGS)), np.float32)])
    ruler: Any = nlp.get_pipe("entity_ruler")
    ruler.add_patterns(
        {
            "label": label,
            "pattern": [{"TAG": {"IN": [f"B-{label}", f"I-{label}"]}}, {"TAG": f"I-{label}", "OP": "*"}],
        }
        for label in LABELS
    )
    return nlp


def train_student(
    nlp: Language,
    lessons: Sequence[Lesson],
    *,
    spec: StudentSpec,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train the tagger of `nlp` in place; its final weights are the averages over all steps.

    `on_epoch` is called, with the averages in use, with the epoch from 1 and a word's mean cross-entropy in nats.
    """
    tagger: Any = nlp.get_pipe("tagger")
    model = tagger.model
    for node in model.walk():
        node.ops = NumpyOps(use_blis=False)  # numpy's matrix product is faster than blis
    rng = random.Random(spec.seed)
    np.random.seed(spec.seed)  # of thinc's dropout
    steps = spec.epochs * sum(1 for _ in _batches(lessons, spec=spec, rng=random.Random(0)))
    optimizer = Adam(spec.rate, grad_clip=1.0, use_averages=True, L2=0.0)
    done = 0
    for epoch in range(1, spec.epochs + 1):
        total = words = 0.0
        for batch in _batches(lessons, spec=spec, rng=rng):
            share = min(1.0, done / steps)
            optimizer.learn_rate = (
                spec.rate * min(1.0, (done + 1) / 100) * (1 - share) + spec.end_rate * share
            )
            loss, size = _step(nlp, model, batch, spec=spec)
            model.finish_update(optimizer)
            total, words, done = total + loss, words + size, done + 1
        with model.use_params(optimizer.averages):
            on_epoch(epoch, total / max(1.0, words))
    for node in model.walk():
        for name in node.param_names:
            mean = optimizer.averages.get((node.id, name))
            if mean is not None:
                node.set_param(name, mean)


def _step(nlp: Language, model: Any, batch: Sequence[Lesson], *, spec: StudentSpec) -> tuple[float, float]:
    """Compute the gradients of a batch; (sum of the words' cross-entropy, number of words)."""
    docs = [nlp.make_doc(lesson.text) for lesson in batch]
    gold = [targets(doc, lesson) for doc, lesson in zip(docs, batch, strict=True)]
    set_dropout_rate(model, spec.dropout)
    answers, backpropagate = model.begin_update(docs)
    known = [g.sum(axis=1, keepdims=True) for g in gold]
    size = float(sum(k.sum() for k in known))
    backpropagate([(a * k - g) for a, k, g in zip(answers, known, gold, strict=True)])
    loss = -sum(float((g * np.log(a + 1e-9)).sum()) for a, g in zip(answers, gold, strict=True))
    return loss, size


def _batches(lessons: Sequence[Lesson], *, spec: StudentSpec, rng: random.Random) -> Iterator[list[Lesson]]:
    """The lessons in random order, some in lower case."""
    batch: list[Lesson] = []
    words = 0
    for lesson in rng.sample(lessons, len(lessons)):
        lower = lesson.text.lower() if rng.random() < spec.caseless else lesson.text
        # A few capitals become two characters in lower case, which would shift the positions.
        batch.append(lesson._replace(text=lower) if len(lower) == len(lesson.text) else lesson)
        words += len(lesson.starts)
        if words >= spec.batch:
            yield batch
            batch, words = [], 0
    if batch:
        yield batch


class SpanCounts(NamedTuple):
    """Numbers of entities; correct ones have the annotated span and label."""

    correct: int
    predicted: int
    annotated: int

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.annotated if self.annotated else 0.0

    @property
    def f1(self) -> float:
        both = self.predicted + self.annotated
        return 2 * self.correct / both if both else 0.0


Span = tuple[int, int, str]


def count_spans(predicted: Sequence[set[Span]], annotated: Sequence[set[Span]]) -> dict[str, SpanCounts]:
    """The counts of each label and of "all"."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("all", *LABELS)}
    for ours, gold in zip(predicted, annotated, strict=True):
        for name, spans in (("correct", ours & gold), ("predicted", ours), ("annotated", gold)):
            for span in spans:
                counts["all"][name] += 1
                counts[span[2]][name] += 1
    return {label: SpanCounts(c["correct"], c["predicted"], c["annotated"]) for label, c in counts.items()}


def entities(nlp: Language, texts: Sequence[str]) -> list[set[Span]]:
    """(start, end, label) of each text's entities, in characters, as in a night."""
    return [
        set(spans) for at in range(0, len(texts), 64) for spans in spans_of_tagger(nlp, texts[at : at + 64])
    ]


def save(nlp: Language, config: Path, folder: Path) -> None:
    """Write the pipeline without the strings that training left in its vocabulary."""
    clean = blank_student(config, nlp.vocab.vectors)
    source: Any = nlp.get_pipe("tagger")
    target: Any = clean.get_pipe("tagger")
    target.model.from_bytes(source.model.to_bytes())
    clean.meta.update({k: nlp.meta[k] for k in DESCRIBED if k in nlp.meta})
    clean.to_disk(folder)
    # spaCy 3.8 reads the attribute by which words are looked up for every table, but writes it for floret only.
    settings = {"mode": "default", "attr": clean.vocab.vectors.attr}
    (folder / "vocab" / "vectors.cfg").write_text(json.dumps(settings) + "\n", encoding="utf-8")


def load(folder: Path) -> Language:
    """Load a pipeline that `save` wrote."""
    return spacy.load(folder)
