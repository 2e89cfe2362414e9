"""Word vectors of the entity recogniser: what the teacher makes of each word of the raw text, in a few numbers.

The labelled words show the student most names once or never. The teacher has met their pieces in a billion sentences,
and has read what the raw text says of them: the mean of its states where a word stands is a vector that names of one
kind share. A word seldom read is held to what the teacher makes of its spelling alone, and shares its vector with words
like it: names of one kind are so much alike that thousands need few.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from spacy.strings import get_string_id
from spacy.vectors import Vectors

from pipelines.recipes.entities.teacher import Teacher, encode

TRUST = 2.0  # readings of a word that weigh as much as its spelling
RIDGE = 10.0
ROUNDS = 6  # of k-means


class VectorSpec(NamedTuple):
    """Of which words there are vectors, and how wide. A number is four bytes of the pipeline's files, a word twelve."""

    words: int = 50_000  # at most; the sets have 48,300 that stand there twice
    own: int = 10_000  # words, the most frequent, with a vector of their own
    shared: int = 6_000  # vectors for all others, each of words that are alike
    width: int = 48
    readings: int = 2  # in context, of each word at least


def word_vectors(
    teacher: Teacher, sentences: Sequence[Sequence[str]], *, spec: VectorSpec, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(the words of the sentences, in lower case; which vector each has; float32 [vectors, spec.width])."""
    words = vocabulary(sentences, most=spec.words)
    chosen = covering(sentences, words, readings=spec.readings, seed=seed)
    rows = reduced(word_states(teacher, words, chosen), spec.width)
    return list(words), *shared(rows, own=spec.own, most=spec.shared, seed=seed)


def vocabulary(sentences: Sequence[Sequence[str]], *, most: int) -> dict[str, str]:
    """The words in lower case that stand there most often (twice at least), each as it is mostly written."""
    forms = Counter(word for words in sentences for word in words)
    counts: Counter[str] = Counter()
    written: dict[str, str] = {}
    for form, count in forms.most_common():
        counts[form.lower()] += count
        written.setdefault(form.lower(), form)
    return {word: written[word] for word, count in counts.most_common(most) if count > 1}


def covering(
    sentences: Sequence[Sequence[str]], words: dict[str, str], *, readings: int, seed: int
) -> list[Sequence[str]]:
    """Sentences, taken at random, that hold each of the words `readings` times where there are as many."""
    read: Counter[str] = Counter()
    chosen: list[Sequence[str]] = []
    for sentence in random.Random(seed).sample(sentences, len(sentences)):
        inside = [word for word in map(str.lower, sentence) if word in words]
        if any(read[word] < readings for word in inside):
            read.update(inside)
            chosen.append(sentence)
    return chosen


@torch.inference_mode()
def states(
    teacher: Teacher, sentences: Sequence[Sequence[str]], *, batch: int = 64
) -> Iterator[tuple[str, np.ndarray]]:
    """(word, mean of the teacher's last states at its pieces), sentence by sentence, the shortest first."""
    ordered = sorted(sentences, key=len)
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        tensors, firsts = encode(teacher, [(words, "wikipedia") for words in part], max_pieces=128)
        found = teacher.states(tensors).numpy()
        for row, (first, pieces) in enumerate(zip(firsts, tensors["attention_mask"].sum(dim=1), strict=True)):
            starts = list(first.values())
            if starts:  # what was cut off has none
                sums = np.add.reduceat(found[row, : int(pieces) - 1], starts)  # without the sign of the end
                sizes = np.diff([*starts, int(pieces) - 1])
                yield from zip((part[row][word] for word in first), sums / sizes[:, None], strict=True)


def word_states(teacher: Teacher, words: dict[str, str], sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """float32 [words, width]: the mean state of each word in the sentences, held to that of its spelling."""
    row = {word: at for at, word in enumerate(words)}
    alone = np.zeros((len(words), teacher.head.in_features), np.float32)
    for form, state in states(teacher, [[form] for form in words.values()], batch=512):
        alone[row[form.lower()]] = state
    total, count = np.zeros_like(alone), np.zeros((len(words), 1), np.float32)
    for form, state in states(teacher, sentences):
        if (at := row.get(form.lower())) is not None:
            total[at] += state
            count[at] += 1
    read = count[:, 0] > 0
    expected = _regressed(alone, alone[read], total[read] / count[read])
    mean: np.ndarray = (total + TRUST * expected) / (count + TRUST)
    return mean


def _regressed(all_alone: np.ndarray, alone: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The states to be expected in text of words by themselves, by ridge regression."""
    middle, centre = alone.mean(axis=0), read.mean(axis=0)
    square = (alone - middle).T @ (alone - middle) + RIDGE * np.eye(alone.shape[1], dtype=np.float32)
    weights = np.linalg.solve(square, (alone - middle).T @ (read - centre))
    result: np.ndarray = (all_alone - middle) @ weights + centre
    return result


def reduced(wide: np.ndarray, width: int) -> np.ndarray:
    """The main components, scaled to a spread of 1; around zero, which is what an unknown word gets."""
    centred = wide - wide.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    narrow = centred @ directions[:, -width:]
    result: np.ndarray = (narrow / narrow.std()).astype(np.float32)
    return result


def shared(rows: np.ndarray, *, own: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [words]: which vector each has; the first `own` rows, and `most` means of the others by k-means)."""
    from sklearn.cluster import KMeans

    others = rows[own:]
    if len(others) <= most:
        return np.arange(len(rows)), rows
    found = KMeans(most, init="random", n_init=1, max_iter=ROUNDS, random_state=seed).fit(others)
    means = found.cluster_centers_.astype(np.float32)
    return np.concatenate([np.arange(own), own + found.labels_]), np.vstack([rows[:own], means])


def as_vectors(words: Sequence[str], places: np.ndarray, rows: np.ndarray) -> Vectors:
    """A table by the lower case of words, without their spellings: spaCy finds them by hash."""
    table = Vectors(shape=rows.shape, attr="LOWER")
    table.data = rows
    for word, place in zip(words, places.tolist(), strict=True):
        table.add(get_string_id(word), row=place)
    return table
