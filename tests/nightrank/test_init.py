from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import nightrank
import pipelines
import rerank_core
from pipelines.nightly.run import run
from rerank_core.rank_passages import rank
from rerank_core.scoring.load import load_scorer

HEAVY = {"apache_beam", "torch", "onnxruntime", "pyarrow", "numpy", "pydantic", "spacy"}


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_imports_nothing_heavy() -> None:
    modules = imported_by("import nightrank; dir(nightrank); nightrank.__version__; nightrank.NightrankError")
    assert "nightrank" in modules
    assert not modules & HEAVY


def test_the_function_of_a_name_imports_what_it_needs_and_no_more() -> None:
    assert "apache_beam" not in imported_by("import nightrank; nightrank.rank; nightrank.load_scorer")


def test_every_name_resolves() -> None:
    for name in nightrank.__all__:
        assert getattr(nightrank, name) is not None
    assert nightrank.rank is rerank_core.rank is rank
    assert nightrank.load_scorer is rerank_core.load_scorer is load_scorer
    assert nightrank.run_night is run
    assert nightrank.__version__ == pipelines.__version__
    assert inspect.getdoc(nightrank.RankedPassage)


def test_dir_lists_the_names() -> None:
    assert dir(nightrank) == sorted(nightrank.__all__)


@pytest.mark.parametrize("package", [nightrank, rerank_core])
def test_an_unknown_name_is_an_attribute_error(package: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        package.no_such_name  # type: ignore[attr-defined]  # noqa: B018
