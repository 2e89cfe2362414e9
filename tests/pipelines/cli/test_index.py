"""`nightrank index`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_type_hints

from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.index import index
from pipelines.sources.local.analysis import LANGUAGES
from tests.support.tiny import CORPUS, write_lines


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_corpus_is_indexed(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", [*CORPUS, "no json"])
    plain = call("index", corpus, "--to", tmp_path / "index")
    assert plain.exit_code == 0
    assert "Indexed 12 passages" in plain.stdout
    assert "bad_json 1; see rejected.jsonl there" in " ".join(plain.stdout.split())
    quiet = call("index", corpus, "--to", tmp_path / "index", "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    report = json.loads(call("index", corpus, "--to", tmp_path / "index", "--json").stdout)
    assert (report["documents"], report["rejected"]) == (12, {"bad_json": 1})


def test_the_help_names_every_language() -> None:
    hint = get_type_hints(index, include_extras=True)["language"]
    assert set(LANGUAGES) <= set(re.findall(r"\w+", hint.__metadata__[0].help))
