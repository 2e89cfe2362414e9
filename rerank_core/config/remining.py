"""How the second round of a training and the later ones come by their negatives: the fields of [remining]."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.backends import BACKENDS, check_backend
from rerank_core.config.night import Mining
from rerank_core.config.toml import STRICT, Positive, absolute, model_path

TeacherBackend = Annotated[str, AfterValidator(lambda name: check_backend(name, BACKENDS))]
Index = Literal["auto", "numpy", "faiss"]


@dataclass(frozen=True, config=STRICT)
class Dense:
    """Candidates from a bi-encoder, beside those that the runs published."""

    model: str = ""  # "" is none
    corpus: str = ""  # "" is the passages that the runs published
    top_k: Positive = 50
    index: Index = "auto"
    max_length: Annotated[int, Field(ge=8)] = 256
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.corpus and not self.model:
            raise ValueError("corpus is searched by a bi-encoder; name it as model, or remove corpus")


@dataclass(frozen=True, config=STRICT)
class FalseNegatives:
    """Who says that a candidate is a positive which nobody labelled."""

    judge: Literal["model", "teacher", "off"] = "model"
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    teacher: str = ""
    backend: TeacherBackend = "onnx"
    max_length: Annotated[int, Field(ge=8)] = 256
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.judge == "teacher" and not self.teacher:
            raise ValueError(
                "judge = 'teacher' needs teacher, the folder of a scorer; or set judge = 'model'"
            )
        if self.teacher and self.judge != "teacher":
            raise ValueError(f"judge = {self.judge!r} asks no teacher; remove it, or set judge = 'teacher'")


@dataclass(frozen=True, config=STRICT)
class Remining:
    """What happens between two rounds."""

    restart: bool = True
    mining: Mining = Mining()
    dense: Dense = Dense()
    false_negatives: FalseNegatives = FalseNegatives()

    def __post_init__(self) -> None:
        if not self.mining.enabled:
            raise ValueError(
                "mining.enabled = false leaves nothing to train on; remove it, or set rounds = 1"
            )


def resolve(remining: Remining, base: Path) -> Remining:
    """The same with relative paths seen from `base`."""
    dense, judge = remining.dense, remining.false_negatives
    return dataclasses.replace(
        remining,
        dense=dataclasses.replace(
            dense, model=model_path(dense.model, base), corpus=absolute(dense.corpus, base)
        ),
        false_negatives=dataclasses.replace(judge, teacher=model_path(judge.teacher, base)),
    )
