from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.scoring.load import DEFAULT_MODEL, Options, load_scorer


def test_a_folder_becomes_a_scorer(make_model: Callable[..., Path]) -> None:
    folder = make_model(file="x.onnx")
    scorer = load_scorer(str(folder), onnx_file="x.onnx", max_length=64, max_tokens=128, threads=1)
    assert scorer.score([("who", "dune")]).shape == (1,)


def test_no_model_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "onnx", Backend(lambda model: model, bi_encoders=True))
    monkeypatch.setitem(BACKENDS, "bi_encoder", Backend(lambda model, **options: model, cosine=True))
    assert load_scorer() == load_scorer("") == str(DEFAULT_MODEL)


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown scoring.backend 'onyx'; known: .*onnx"):
        load_scorer(backend="onyx")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_the_options_that_its_line_lists(name: str) -> None:
    backend = BACKENDS[name]
    assert isinstance(backend.factory, str)
    try:
        parameters = inspect.signature(pkgutil.resolve_name(backend.factory)).parameters
    except ImportError as error:
        pytest.skip(f"needs pip install 'nightrank[{backend.extra}]' ({error})")
    assert set(backend.options) == set(parameters) & set(Options._fields)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_the_core_imports_no_engine() -> None:
    code = (
        "import sys, rerank_core, rerank_core.scoring.load\n"
        "print([m for m in ('onnxruntime', 'tokenizers', 'numpy', 'torch', 'pydantic', 'pyarrow') if m in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers"])
def test_a_missing_engine_names_the_extra(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from rerank_core.scoring.load import load_scorer\n"
        "try: load_scorer('.')\n"
        "except ImportError as error: print(error)"
    )
    assert "pip install 'nightrank[cpu]'" in run(code)
