"""Names of files, and dead letters in files of bounded size."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.beam_options import beam_options
from pipelines.nightly import sinks
from pipelines.nightly.prepare import Run
from pipelines.nightly.sinks import WriteDeadLetters, file_name
from pipelines.storage import filesystem
from schemas.records import Rejected


@given(st.integers(1, 10_000_000), st.data())
def test_names_sort_as_their_numbers(total: int, data: st.DataObject) -> None:
    one, other = (data.draw(st.integers(0, total - 1)) for _ in range(2))
    assert (file_name(one, total) < file_name(other, total)) == (one < other)


@pytest.mark.parametrize(("letters", "files"), [(0, 1), (3, 1), (4, 2), (40, 14)])
def test_each_dead_letter_is_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: int, files: int
) -> None:
    monkeypatch.setattr(sinks, "LETTERS_PER_FILE", 3)
    rejected = [Rejected("Stage", "event", f"log:{n % 30}", "bad", "detail") for n in range(letters)]
    run = Run("r", "2026-03-08", None, str(tmp_path), None)
    with beam.Pipeline(options=beam_options(())) as pipeline:
        _ = pipeline | beam.Create(rejected).with_output_types(Rejected) | WriteDeadLetters(run)
    tables = [filesystem.read_table(path) for path in filesystem.files(str(tmp_path / "dead_letters"))]
    assert len(tables) == files
    rows = [Rejected(**row) for table in tables for row in table.to_pylist()]
    assert sorted(rows) == sorted(rejected)
    for table in tables:
        found = [Rejected(**row) for row in table.to_pylist()]
        assert found == sorted(found)
