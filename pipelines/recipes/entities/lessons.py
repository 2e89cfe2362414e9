"""The student's training data: annotated sentences, titles with definitions, and raw text labelled by the teacher."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from spacy.language import Language

from pipelines.recipes.entities import student, teacher, titles
from pipelines.recipes.entities.student import Lesson
from pipelines.recipes.entities.teacher import Sentence, Teacher
from pipelines.recipes.entities.viterbi import marginals
from rerank_core.candidates.units import sentences as split_sentences
from rerank_core.features.ner.bio import TAGS

SETS = ("hotpotqa", "musique", "nq", "squad")
COPIES = {"wikipedia": 3, "web": 1}  # of the annotated sentences, per epoch
QUERIES = 2000  # per set
SHARD = 400  # texts per file of labels


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def gold_lessons(sentences: Sequence[Sentence], teachers: Sequence[Teacher]) -> list[Lesson]:
    """The annotated sentences, half of them with the spacing of prose.

    Where the annotation leaves open whether a word is O or MISC, the teacher decides.
    """
    lessons = []
    kinds = [teacher.kind_of(s.words) for s in sentences]
    predicted = teacher.probabilities(teachers, [(s.words, k) for s, k in zip(sentences, kinds, strict=True)])
    for i, (sentence, kind, of_words) in enumerate(zip(sentences, kinds, predicted, strict=True)):
        p = np.eye(len(TAGS), dtype=np.float32)[[TAGS.index(tag) for tag in sentence.tags]]
        for word in teacher.open_words(sentence, kind):
            allowed = np.where(np.isin(TAGS, teacher.EITHER), of_words[word], 0.0)
            p[word] = allowed / allowed.sum() if allowed.sum() > 0 else p[word]
        copies = COPIES[kind]
        lessons += [Lesson(*student.joined(sentence.words, tight=(i + n) % 2 == 0), p) for n in range(copies)]
    return lessons


def raw_texts(data: Path, *, words: int, seed: int) -> dict[str, str]:
    """Passages and train queries of SETS with their titles, in random order, up to `words` words."""
    titles_of: dict[str, str] = {}
    for name in SETS:
        titles_of |= {row["text"]: row["title"] for row in _rows(data / name / "corpus.jsonl")}
        queries = [row["text"] for row in _rows(data / name / "queries.jsonl") if row.get("split") == "train"]
        titles_of |= dict.fromkeys(queries[:QUERIES], "")
    texts = sorted(titles_of)
    random.Random(seed).shuffle(texts)
    sizes = np.cumsum([len(text.split()) for text in texts])
    return {text: titles_of[text] for text in texts[: int(np.searchsorted(sizes, words)) + 1]}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def words_of(nlp: Language, text: str) -> tuple[list[str], list[int]]:
    """(words as in the annotated text: spaCy's, but not split at hyphens; position of each in `text`)."""
    words: list[str] = []
    starts: list[int] = []
    end, glue = -1, False
    for token in nlp.make_doc(text):
        if token.is_space:
            continue
        hyphen = token.text in {"-", "–"} and token.idx == end and not token.whitespace_
        if words and token.idx == end and (glue or hyphen):
            words[-1] += token.text
        else:
            words.append(token.text)
            starts.append(token.idx)
        end, glue = token.idx + len(token.text), hyphen
    return words, starts


def tokenised(nlp: Language, texts: Iterable[str]) -> list[list[str]]:
    """The sentences of the texts as lists of the student's tokens."""
    sentences = (sentence for text in texts for sentence in split_sentences(text))
    words = ([token.text for token in nlp.make_doc(sentence) if not token.is_space] for sentence in sentences)
    return [of_sentence for of_sentence in words if of_sentence]


def titled_sentences(nlp: Language, data: Path) -> list[Sentence]:
    """Sentences that name the subject of their passage, if the passage defines it.

    Words that may belong to other names, those with a capital, are UNKNOWN.
    """
    result = []
    for row in (row for name in SETS for row in _rows(data / name / "corpus.jsonl")):
        spans = titles.title_spans(row["title"], row["text"])
        for sentence, at in placed_sentences(row["text"]) if spans else ():
            inside = [(a - at, b - at, label) for a, b, label in spans if at <= a and b <= at + len(sentence)]
            if inside and len(sentence) < 400:
                words, starts = words_of(nlp, sentence)
                result.append(Sentence(tuple(words), title_tags(words, starts, inside)))
    return result


def title_tags(
    words: Sequence[str], starts: Sequence[int], spans: Sequence[tuple[int, int, str]]
) -> tuple[str, ...]:
    """BIO tags of words that begin at `starts`, from (start, end, label) spans; capitalised others are UNKNOWN."""
    tags = ["O" if word == word.lower() else teacher.UNKNOWN for word in words]
    for start, end, label in spans:
        covered = [i for i, at in enumerate(starts) if start <= at < end]
        for i in covered:
            tags[i] = f"I-{label}"
        if covered:
            tags[covered[0]] = f"B-{label}"
    return tuple(tags)


def placed_sentences(text: str) -> Iterator[tuple[str, int]]:
    """(sentence, its position) of a text."""
    at = 0
    for sentence in split_sentences(text):
        at = text.index(sentence, at)
        yield sentence, at
        at += len(sentence)


def silver_lessons(nlp: Language, teachers: Sequence[Teacher], texts: Sequence[str]) -> list[Lesson]:
    """Raw texts with the teachers' probabilities, computed by sentence."""
    pieces: list[tuple[int, list[str], np.ndarray]] = []
    for i, text in enumerate(texts):
        for sentence, at in placed_sentences(text):
            words, starts = words_of(nlp, sentence)
            if words:
                pieces.append((i, words, np.array(starts, np.int32) + at))
    predicted = teacher.probabilities(teachers, [(words, "wikipedia") for _, words, _ in pieces])
    by_text: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for (i, _, positions), p in zip(pieces, predicted, strict=True):
        by_text.setdefault(i, []).append((positions, p))
    return [
        Lesson(texts[i], np.concatenate([s for s, _ in parts]), np.concatenate([p for _, p in parts]))
        for i, parts in by_text.items()
    ]


def label_texts(
    nlp: Language, teachers: Sequence[Teacher], texts: dict[str, str], *, work: Path, follows: np.ndarray
) -> list[Lesson]:
    """`silver_lessons` of texts with titles, decoded as sequences with the transitions `follows`.

    Texts are labelled in shards; a shard that is in `work` is not labelled again.
    """
    lessons = []
    for start in range(0, len(texts), SHARD):
        part = list(texts)[start : start + SHARD]
        path = work / f"silver_{start:06d}.npz"
        if not path.exists():
            labelled = silver_lessons(nlp, teachers, part)
            arrays: dict[str, Any] = {f"s{i}": m.starts for i, m in enumerate(labelled)}
            arrays |= {f"p{i}": m.p.astype(np.float16) for i, m in enumerate(labelled)}
            np.savez_compressed(path, texts=np.array([m.text for m in labelled]), **arrays)
            log(f"labelled {start + len(part)} of {len(texts)} texts")
        with np.load(path) as saved:
            for i, text in enumerate(map(str, saved["texts"])):
                p = marginals(saved[f"p{i}"].astype(np.float32), follows)
                lesson = Lesson(text, saved[f"s{i}"], p)
                lessons.append(with_title(lesson, texts[text]))
    return lessons


def with_title(lesson: Lesson, title: str) -> Lesson:
    """The lesson with the label of the passage's subject from its definition, which overrides the teacher."""
    p = lesson.p.copy()
    for start, end, label in titles.title_spans(title, lesson.text):
        inside = np.flatnonzero((lesson.starts >= start) & (lesson.starts < end))
        p[inside] = np.eye(len(TAGS), dtype=np.float32)[TAGS.index(f"I-{label}")]
        p[inside[:1]] = np.eye(len(TAGS), dtype=np.float32)[TAGS.index(f"B-{label}")]
    return lesson._replace(p=p)
