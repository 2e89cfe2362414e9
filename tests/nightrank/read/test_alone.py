"""nightrank.read runs where nothing but pyarrow is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.published_run import publish_run, text

BLOCK = """
import sys

ALLOWED = {*sys.stdlib_module_names, "pyarrow", "nightrank", "rerank_core", "schemas"}

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
"""
USE = """
import asyncio
import nightrank
found = nightrank.read.open({output!r}, follow=True)
assert found.lookup({query!r})[0].rank == 1
assert found.lookup({query!r} + " x", nearest=True).similarity < 1
assert asyncio.run(found.alookup({query!r})).run_id == "r1"
assert found.table({query!r}, ["rank"]).num_rows == 4
assert sum(1 for _ in found.queries()) == 60
print(*sorted({{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names))
"""


def test_it_needs_pyarrow_alone(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1")
    code = BLOCK + USE.format(output=str(tmp_path), query=text(4))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - {"cython_runtime"} == {"nightrank", "pyarrow", "rerank_core", "schemas"}


def test_importing_it_imports_neither_compute_nor_asyncio() -> None:
    code = f"{BLOCK}\nimport nightrank.read; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "pyarrow.parquet" in modules
    assert not modules & {"pyarrow.compute", "pyarrow.dataset", "asyncio", "pyarrow.pandas_compat"}
