"""The section [remining] of a training: how the second and later rounds mine their negatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.backends import BACKENDS, check_backend
from rerank_core.config.labels import Mining
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
            raise ValueError(
                "corpus needs model, the bi-encoder that searches it; set model, or remove corpus"
            )


@dataclass(frozen=True, config=STRICT)
class FalseNegatives:
    """The judge of false negatives: candidates that are probably relevant but not labelled."""

    judge: Literal["model", "teacher", "off"] = "model"
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    teacher: str = ""
    backend: TeacherBackend = "onnx"
    max_length: Annotated[int, Field(ge=8)] = 256
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.judge == "teacher" and not self.teacher:
            raise ValueError(
                "judge = 'teacher' needs teacher, the folder of a model; set teacher, or judge = 'model'"
            )
        if self.teacher and self.judge != "teacher":
            raise ValueError(
                f"teacher has no effect with judge = {self.judge!r}; remove teacher, or set judge = 'teacher'"
            )


@dataclass(frozen=True, config=STRICT)
class Remining:
    """How negatives are mined between two rounds."""

    restart: bool = True
    mining: Mining = Mining()
    dense: Dense = Dense()
    false_negatives: FalseNegatives = FalseNegatives()

    def __post_init__(self) -> None:
        if not self.mining.enabled:
            raise ValueError(
                "mining.enabled = false leaves a second round without negatives; remove it, or set rounds = 1"
            )


def resolve(remining: Remining, base: Path) -> Remining:
    """The same with its relative paths resolved against `base`."""
    dense, judge = remining.dense, remining.false_negatives
    return dataclasses.replace(
        remining,
        dense=dataclasses.replace(
            dense, model=model_path(dense.model, base), corpus=absolute(dense.corpus, base)
        ),
        false_negatives=dataclasses.replace(judge, teacher=model_path(judge.teacher, base)),
    )
