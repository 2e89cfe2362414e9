"""Word vectors of the named-entity recogniser: the teacher's states for each word of the raw text, in few dimensions.

Most names occur once or never in the labelled text. The teacher's pre-training covers their pieces, and its states also
depend on the context: the mean state of a word's occurrences is similar for names of one kind. For a rare word the mean
is regularised towards the state of its spelling alone, and rare words share vectors: those of one kind are so similar
that thousands of words need few.
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

PRIOR = 2.0  # weight of a word's spelling, in occurrences
RIDGE = 10.0
ITERATIONS = 6  # of k-means


class VectorSpec(NamedTuple):
    """Size of the table. A number takes four bytes of the pipeline's files, a word twelve."""

    words: int = 50_000  # at most; the sets have 48,300 that occur twice or more
    own: int = 10_000  # most frequent words, with one vector each
    shared: int = 6_000  # vectors for all other words, by similarity
    width: int = 48
    readings: int = 2  # occurrences in context that are read for each word, at least


def word_vectors(
    teacher: Teacher, sentences: Sequence[Sequence[str]], *, spec: VectorSpec, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(the words of the sentences, in lower case; number of each word's vector; float32 [vectors, spec.width])."""
    words = vocabulary(sentences, most=spec.words)
    chosen = covering(sentences, words, readings=spec.readings, seed=seed)
    rows = reduced(word_states(teacher, words, chosen), spec.width)
    return list(words), *shared(rows, own=spec.own, most=spec.shared, seed=seed)


def vocabulary(sentences: Sequence[Sequence[str]], *, most: int) -> dict[str, str]:
    """The most frequent words in lower case (at least two occurrences), each with its most frequent spelling."""
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
    """Random sentences that contain each word `readings` times, if there are as many."""
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
        last = teacher.states(tensors).numpy()
        for row, (first, pieces) in enumerate(zip(firsts, tensors["attention_mask"].sum(dim=1), strict=True)):
            starts = list(first.values())
            if starts:  # none if all words were truncated
                sums = np.add.reduceat(last[row, : int(pieces) - 1], starts)  # without the closing [SEP]
                sizes = np.diff([*starts, int(pieces) - 1])
                yield from zip((part[row][word] for word in first), sums / sizes[:, None], strict=True)


def word_states(teacher: Teacher, words: dict[str, str], sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """float32 [words, width]: each word's mean state in the sentences, regularised towards that of its spelling."""
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
    mean: np.ndarray = (total + PRIOR * expected) / (count + PRIOR)
    return mean


def _regressed(all_alone: np.ndarray, alone: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The expected states in text, predicted from the states of single words by ridge regression."""
    middle, centre = alone.mean(axis=0), read.mean(axis=0)
    square = (alone - middle).T @ (alone - middle) + RIDGE * np.eye(alone.shape[1], dtype=np.float32)
    weights = np.linalg.solve(square, (alone - middle).T @ (read - centre))
    result: np.ndarray = (all_alone - middle) @ weights + centre
    return result


def reduced(wide: np.ndarray, width: int) -> np.ndarray:
    """The main components with standard deviation 1 and mean zero, which is the vector of an unknown word."""
    centred = wide - wide.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    narrow = centred @ directions[:, -width:]
    result: np.ndarray = (narrow / narrow.std()).astype(np.float32)
    return result


def shared(rows: np.ndarray, *, own: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [words]: number of each word's vector; the first `own` rows, then `most` k-means centres)."""
    from sklearn.cluster import KMeans

    others = rows[own:]
    if len(others) <= most:
        return np.arange(len(rows)), rows
    clusters = KMeans(most, init="random", n_init=1, max_iter=ITERATIONS, random_state=seed).fit(others)
    centres = clusters.cluster_centers_.astype(np.float32)
    return np.concatenate([np.arange(own), own + clusters.labels_]), np.vstack([rows[:own], centres])


def as_vectors(words: Sequence[str], row_of: np.ndarray, rows: np.ndarray) -> Vectors:
    """spaCy's table by the lower case of words, without the strings: spaCy looks words up by hash."""
    table = Vectors(shape=rows.shape, attr="LOWER")
    table.data = rows
    for word, row in zip(words, row_of.tolist(), strict=True):
        table.add(get_string_id(word), row=row)
    return table
