"""What one tiny night publishes, row by row, so that a change of the output shows in a review.

To write the files anew after an intended change, and look at the difference:

    python -m pytest tests/golden --regenerate
    git diff tests/golden

Left out is what differs between machines and days: times, sizes, paths, the version, the run's id and the hash of its
inputs. So is the configuration, whose defaults tests/test_examples.py holds. Numbers have six significant digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.manifest import to_json
from schemas.tables import TABLES, schema_version
from tests.conftest import Night
from tests.support.tiny import Tiny, rows

FOLDER = Path(__file__).parent


def plain(value: Any) -> Any:
    """A value as the golden files hold it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: plain(held) for name, held in value.items()}
    return [plain(held) for held in value] if isinstance(value, list) else value


def table(night: Night, name: str) -> str:
    published = rows(night.output, night.manifest, name)
    head = {"table": name, "schema_version": schema_version(TABLES[name])}
    return "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in [head, *published])


def manifest(night: Night, tiny: Tiny) -> str:
    text = to_json(night.manifest).replace(str(tiny.folder), "TINY").replace(str(night.output), "OUTPUT")
    contents = json.loads(text.replace(night.manifest.run_id, "RUN"))
    for name in ("created_at", "seconds", "nightrank_version", "config", "inputs"):
        del contents[name]
    for tally in contents["stages"].values():
        tally.pop("seconds", None)
    for info in contents["tables"].values():
        info["files"] = sorted(info["files"])  # their bytes differ between versions of Arrow
    return json.dumps(plain(contents), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", [*TABLES, "manifest"])
def test_a_night_publishes_what_it_did(
    night: Night, tiny: Tiny, request: pytest.FixtureRequest, name: str
) -> None:
    path = FOLDER / (f"{name}.json" if name == "manifest" else f"{name}.jsonl")
    found = manifest(night, tiny) if name == "manifest" else table(night, name)
    if request.config.getoption("--regenerate"):
        path.write_text(found, encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    assert found.splitlines() == expected.splitlines(), (
        f"{path.name} differs; if that is meant: python -m pytest tests/golden --regenerate"
    )
