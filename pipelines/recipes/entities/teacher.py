"""The teacher of the named-entity recogniser: MiniLM as a token classifier, which labels raw text for the student.

MiniLM is uncased, so an embedding of each word's shape (`shape_of`) is added to the input. A second embedding tells the
kind of text (`kind_of`): tweets are annotated by other rules than Wikipedia, and most have no MISC at all.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from rerank_core.features.ner.bio import TAGS

KINDS = ("wikipedia", "web")
SHAPES = ("lower", "capitalised", "initial", "upper", "mixed", "digits", "alphanumeric", "other")
UNKNOWN = "?"
EITHER = ("O", "B-MISC", "I-MISC")  # what an open word may be
IGNORED = -100  # label of pieces that do not begin a word

_NOT_WIKIPEDIA = re.compile(
    r"@|http|#|www\.|\bRT\b|[^\x00-\u024f\u2013\u2014\u2019]|&\w+;|\.\.|[!?]|\b(?:I|I'm|my|u|lol|you|your)\b"
)


class Sentence(NamedTuple):
    """A sentence with its annotation."""

    words: tuple[str, ...]
    tags: tuple[str, ...]  # of TAGS, one per word; UNKNOWN for a word that was not annotated


class Phase(NamedTuple):
    """Some epochs with one rise and fall of the learning rate."""

    epochs: int
    copies: int  # of the annotated sentences of Wikipedia, per epoch
    web: int  # annotated sentences of the web, drawn again for each epoch
    titled: int  # sentences in which only the title is annotated, drawn again for each epoch


class TeacherSpec(NamedTuple):
    """How a teacher is trained."""

    phases: tuple[Phase, ...] = (Phase(3, 2, 1500, 0), Phase(5, 1, 200, 700))
    batch: int = 32  # sentences
    rate: float = 2e-4
    head_rate: float = 2e-3
    caseless: float = 0.1  # share of sentences with the shapes of lower case
    max_pieces: int = 128
    seed: int = 7


def read_conll(path: Path) -> list[Sentence]:
    """Sentences of a file with a word, a tab and a BIO tag per line, and blank lines between sentences."""
    sentences = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line.strip()]
        if rows:
            sentences.append(Sentence(tuple(row[0] for row in rows), tuple(row[-1] for row in rows)))
    return sentences


def kind_of(words: Sequence[str]) -> str:
    """The kind of a sentence, one of KINDS, by its look: the training file mixes Wikipedia and tweets."""
    text = " ".join(words)
    whole = words[-1] in {".", '"', "''"} and words[0][0].isupper()
    return "wikipedia" if whole and not _NOT_WIKIPEDIA.search(text) else "web"


def shape_of(word: str) -> str:
    """The shape of a word, one of SHAPES."""
    if word.isalpha():
        if word.islower():
            return "lower"
        if len(word) == 1:
            return "initial"
        if word.isupper():
            return "upper"
        return "capitalised" if word[0].isupper() and word[1:].islower() else "mixed"
    if word.isdigit():
        return "digits"
    if any(c.isalpha() for c in word):
        return "initial" if len(word) == 2 and word[0].isupper() else "alphanumeric"
    return "other"


class Teacher(nn.Module):
    """An encoder with embeddings of shape and kind added to its input, and one linear layer on top."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(base, add_pooling_layer=False)
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        # They are half of the parameters, and the annotated text has too few of the words to train them.
        self.encoder.embeddings.word_embeddings.requires_grad_(False)
        width = self.encoder.config.hidden_size
        self.shape = nn.Embedding(len(SHAPES) + 1, width)  # the last for pieces that belong to no word
        self.kind = nn.Embedding(len(KINDS), width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, len(TAGS))
        for added in (self.shape, self.kind):
            nn.init.normal_(added.weight, std=0.02)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of TAGS, float32 [sentences, pieces, tags]."""
        logits: torch.Tensor = self.head(self.drop(self.states(batch)))
        return logits

    def states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The encoder's last states, float32 [sentences, pieces, width]."""
        vectors = self.encoder.embeddings.word_embeddings(batch["input_ids"])
        vectors = vectors + self.shape(batch["shapes"]) + self.kind(batch["kinds"])[:, None]
        mask = batch["attention_mask"]
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast on processors with bf16
            states = self.encoder(inputs_embeds=vectors, attention_mask=mask).last_hidden_state
        result: torch.Tensor = states.float()
        return result


def encode(
    teacher: Teacher,
    sentences: Sequence[tuple[Sequence[str], str]],
    *,
    max_pieces: int,
    caseless: Sequence[bool] | None = None,
) -> tuple[dict[str, torch.Tensor], list[dict[int, int]]]:
    """(tensors of (words, kind) sentences; for each, the first piece of each word that was not truncated)."""
    coded: Any = teacher.tokenizer(
        [list(words) for words, _ in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=max_pieces,
        padding=True,
        return_tensors="pt",
    )
    shapes = torch.full(coded["input_ids"].shape, len(SHAPES))
    firsts: list[dict[int, int]] = []
    for row, (words, _) in enumerate(sentences):
        hidden = bool(caseless and caseless[row])
        codes = [SHAPES.index(shape_of(word.lower() if hidden else word)) for word in words]
        first: dict[int, int] = {}
        for piece, word in enumerate(coded.word_ids(row)):
            if word is not None:
                shapes[row, piece] = codes[word]
                first.setdefault(word, piece)
        firsts.append(first)
    kinds = torch.tensor([KINDS.index(kind) for _, kind in sentences])
    tensors = {name: coded[name] for name in ("input_ids", "attention_mask")}
    return tensors | {"shapes": shapes, "kinds": kinds}, firsts


def train_teacher(
    base: Path,
    sentences: Sequence[Sentence],
    *,
    titled: Sequence[Sentence],
    spec: TeacherSpec,
    on_epoch: Callable[[Teacher, int, float], None] = lambda teacher, epoch, loss: None,
) -> Teacher:
    """A teacher fine-tuned on the sentences; `on_epoch` is called with it, the epoch from 1 and the mean loss."""
    torch.manual_seed(spec.seed)
    teacher = Teacher(base)
    epochs = itertools.count(1)

    def on_end(loss: float) -> None:
        on_epoch(teacher, next(epochs), loss)

    for number, phase in enumerate(spec.phases):
        own = spec._replace(seed=spec.seed + number)
        run_phase(teacher, sentences, titled=titled, phase=phase, spec=own, on_epoch=on_end)
    teacher.eval()
    return teacher


def run_phase(
    teacher: Teacher,
    sentences: Sequence[Sentence],
    *,
    titled: Sequence[Sentence],
    phase: Phase,
    spec: TeacherSpec,
    on_epoch: Callable[[float], None],
) -> None:
    """One phase of `train_teacher`, with a new optimizer; the teacher is changed in place."""
    rng = random.Random(spec.seed)
    added = [*teacher.head.parameters(), *teacher.shape.parameters(), *teacher.kind.parameters()]
    encoder = [p for p in teacher.encoder.parameters() if p.requires_grad]
    rates = [{"params": encoder, "lr": spec.rate}, {"params": added, "lr": spec.head_rate}]
    optimizer = torch.optim.AdamW(rates, weight_decay=0.01)
    schedule = None
    for _ in range(phase.epochs):
        batches = _epoch(sentences, titled, phase=phase, size=spec.batch, rng=rng)
        schedule = schedule or torch.optim.lr_scheduler.LambdaLR(
            optimizer, _warm_then_linear(phase.epochs * len(batches))
        )
        teacher.train()
        total = 0.0
        for batch in batches:
            loss = _loss(teacher, batch, spec=spec, rng=rng)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        teacher.eval()
        on_epoch(total / len(batches))


def _warm_then_linear(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 15)
    return lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))


def _epoch(
    sentences: Sequence[Sentence], titled: Sequence[Sentence], *, phase: Phase, size: int, rng: random.Random
) -> list[list[Sentence]]:
    """Batches of sentences of similar length, in random order."""
    wikipedia = [s for s in sentences if kind_of(s.words) == "wikipedia"]
    web = [s for s in sentences if kind_of(s.words) == "web"]
    chosen = wikipedia * phase.copies + rng.sample(web, min(phase.web, len(web)))
    chosen += rng.sample(titled, min(phase.titled, len(titled)))
    rng.shuffle(chosen)
    chosen.sort(key=lambda s: len(s.words) // 4)
    batches = [chosen[at : at + size] for at in range(0, len(chosen), size)]
    rng.shuffle(batches)
    return batches


def open_words(sentence: Sentence, kind: str) -> list[int]:
    """Positions of the words that are annotated O but may be MISC.

    Most tweets were annotated without MISC: in a web sentence that has none, any capitalised word may be MISC.
    """
    if kind != "web" or any(tag.endswith("MISC") for tag in sentence.tags):
        return []
    pairs = zip(sentence.words, sentence.tags, strict=True)
    return [at for at, (word, tag) in enumerate(pairs) if tag == "O" and word[0].isupper()]


def _loss(
    teacher: Teacher, batch: Sequence[Sentence], *, spec: TeacherSpec, rng: random.Random
) -> torch.Tensor:
    """Mean over the words of -log p(their tag), or -log p(EITHER) of an open word."""
    inputs = [(s.words, kind_of(s.words)) for s in batch]
    hidden = [rng.random() < spec.caseless for _ in batch]
    tensors, firsts = encode(teacher, inputs, max_pieces=spec.max_pieces, caseless=hidden)
    gold = torch.full(tensors["input_ids"].shape, IGNORED)
    open_ = torch.zeros(tensors["input_ids"].shape, dtype=torch.bool)
    for row, (sentence, first) in enumerate(zip(batch, firsts, strict=True)):
        unsure = set(open_words(sentence, inputs[row][1]))
        for word, piece in first.items():
            tag = sentence.tags[word]
            gold[row, piece] = IGNORED if tag == UNKNOWN else TAGS.index(tag)
            open_[row, piece] = word in unsure
    log_p = torch.log_softmax(teacher(tensors), dim=-1)
    known = gold != IGNORED
    log_p, gold, open_ = log_p[known], gold[known], open_[known]
    either = [TAGS.index(tag) for tag in EITHER]
    right = log_p.gather(1, gold[:, None])[:, 0]
    return -torch.where(open_, log_p[:, either].logsumexp(dim=1), right).mean()


@torch.inference_mode()
def probabilities(
    teachers: Sequence[Teacher],
    sentences: Sequence[tuple[Sequence[str], str]],
    *,
    batch: int = 64,
    max_pieces: int = 128,
) -> list[np.ndarray]:
    """p(tag) of each word of each (words, kind): float32 [words, TAGS], the mean over the teachers.

    Words beyond `max_pieces` have zeros.
    """
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i][0]))
    result = [np.zeros((len(words), len(TAGS)), np.float32) for words, _ in sentences]
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        tensors, firsts = encode(teachers[0], [sentences[i] for i in part], max_pieces=max_pieces)
        p = torch.stack([t(tensors).softmax(dim=-1) for t in teachers]).mean(dim=0).numpy()
        for row, (i, first) in enumerate(zip(part, firsts, strict=True)):
            if first:
                result[i][list(first)] = p[row, list(first.values())]
    return result
