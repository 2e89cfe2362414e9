"""A new tag is one file and one line: in a copy of the packages with just that, a night publishes and reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
LAST_LINE = '    reasoning: Annotated[bool, Field("reasoning.REASONING", "Tag: dense in entities")]\n'
LINE = '    length: Annotated[str, Field("length.LENGTH", "Tag: how long the text is, short or long")]\n'
FILE = """
from rerank_core.features.tags import Tag

LENGTH = Tag(
    lambda given: ["long" if facts.words > 10 else "short" for facts in given.facts],
    "LENGTH",
    values=("short", "long"),
    ideal="short",
)
"""
NIGHT = """
import json
import sys
from pathlib import Path

from pipelines.nightly.run import run
from rerank_core.config.training import TagPolicy
from rerank_core.evaluation.tag_ablation import retag
from rerank_core.features.render import escape, special_tokens, split_tags
from rerank_core.training.tag_policy import shown_tags
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate
from schemas.tags import Tags
from tests.support.fakes import fake
from tests.support.tiny import DAY, make_config, make_tiny, rows


def main(folder: Path) -> None:
    tiny, output = make_tiny(folder / "tiny"), folder / "output"
    manifest = run(make_config(tiny, output), run_date=DAY, load=fake(seen=str(folder / "seen")))
    published = rows(output, manifest)
    inputs = [json.loads(line) for line in (folder / "seen").read_text().splitlines()]
    tags = Tags.from_row(published[0])
    candidates = [Candidate(name, name, "", "text", 1.0, 1) for name in "ab"]
    group = QueryGroup(
        Query("q", "a query", 1, 0, ()),
        tuple(ScoredCandidate(one, tags._replace(length="long"), "", None, False, 0) for one in candidates),
    )
    forge = TagPolicy(policy="keep", tag_forge=1.0)
    made = [shown_tags([""], ["text"], key=str(n), epoch=0, policy=forge, seed=7)[0] for n in range(20)]
    result = {
        "columns": list(published[0]),
        "rows": [[row["text"], row["length"]] for row in published],
        "heads": sorted({split_tags(query)[0] for query, _ in inputs}),
        "tokens": [token for token in special_tokens() if "LENGTH" in token],
        "escaped": escape("see [LENGTH:short]"),
        "negatives": [row["positive_tags"] for row in rows(output, manifest, "hard_negatives")],
        "ablation": {
            mode: sorted(one.tags.length for one in retag(group, mode=mode).candidates)
            for mode in ("true", "forged")
        },
        "forged": made,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a night and its neighbours make of the tag, in a process that sees the copy alone."""
    folder = tmp_path_factory.mktemp("new_tag")
    skip = shutil.ignore_patterns("models", "__pycache__")
    for package in ("schemas", "rerank_core", "pipelines", "tests/support"):
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    (folder / "tests" / "__init__.py").touch()
    (folder / "rerank_core" / "models").symlink_to(ROOT / "rerank_core" / "models")
    (folder / "rerank_core" / "features" / "length.py").write_text(FILE)
    table = folder / "schemas" / "tags.py"
    text = table.read_text()
    assert text.count(LAST_LINE) == 1
    table.write_text(text.replace(LAST_LINE, LAST_LINE + LINE))
    (folder / "night.py").write_text(NIGHT)
    done = subprocess.run(
        [sys.executable, "night.py", str(folder / "work")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_its_column_is_published_after_the_tag_before_it(result: dict[str, Any]) -> None:
    columns = result["columns"]
    assert columns[columns.index("reasoning") + 1] == "length"
    assert all(length == ("long" if len(text.split()) > 10 else "short") for text, length in result["rows"])
    assert {length for _, length in result["rows"]} == {"short", "long"}


def test_the_model_reads_it_and_no_text_can_forge_it(result: dict[str, Any]) -> None:
    assert all("[LENGTH:" in head for head in result["heads"])
    assert {head.rpartition(" ")[2] for head in result["heads"]} == {"[LENGTH:short]", "[LENGTH:long]"}
    assert result["tokens"] == ["[LENGTH:short]", "[LENGTH:long]"]
    assert result["escaped"] == "see (LENGTH:short)"


def test_negatives_are_mined_with_it(result: dict[str, Any]) -> None:
    assert result["negatives"]
    assert all("[LENGTH:" in tags for tags in result["negatives"])


def test_a_training_forges_it_and_the_ablation_makes_it_ideal(result: dict[str, Any]) -> None:
    assert {head.rpartition(" ")[2] for head in result["forged"]} == {"[LENGTH:short]", "[LENGTH:long]"}
    assert result["ablation"] == {"true": ["long", "long"], "forged": ["long", "short"]}
