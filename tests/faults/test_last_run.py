"""A damaged or unanswered file of the last run costs time, not truth: nothing wrong is reused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.nightly.run import run
from schemas.errors import ManifestError, Unanswered
from schemas.manifest import Manifest
from tests.conftest import MakeConfig, Night
from tests.support.fakes import FakeScorer, fake, forbidden
from tests.support.object_store import MemoryFileSystem
from tests.support.tiny import DAY, GOOD_LOG


def test_a_truncated_file_of_the_last_run_costs_time_not_truth(
    night: Night, make_config: MakeConfig, tmp_path: Path
) -> None:
    shutil.copytree(night.output, tmp_path / "output")
    victim = min((tmp_path / "output" / night.manifest.tables["reranked"].path).iterdir())
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    pq.write_table(pa.Table.from_pylist(GOOD_LOG), tmp_path / "log.parquet")  # as good a log as any
    manifest = run(make_config(source={"log": str(tmp_path / "log.parquet")}), run_date=DAY, load=fake())
    assert manifest.balance.pairs == night.manifest.balance.pairs
    assert f"{victim} is not what its manifest says" in str(manifest.degraded["reuse"])
    assert (manifest.balance.pairs["reused"], manifest.previous_run_id) == (0, None)
    assert manifest.model_fingerprint == FakeScorer().fingerprint


@pytest.mark.parametrize("table", ["reranked", "passage_tags"])
def test_a_flipped_bit_of_the_last_run_costs_time_not_truth_and_one_night_alone(
    night: Night, make_config: MakeConfig, tmp_path: Path, table: str
) -> None:
    shutil.copytree(night.output, tmp_path / "output")
    victim = min((tmp_path / "output" / night.manifest.tables[table].path).iterdir())
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 3] ^= 1  # in its pages
    victim.write_bytes(damaged)
    manifest = run(make_config(), run_date=DAY, load=fake())
    assert f"{victim} has another checksum" in str(manifest.degraded["reuse"])
    assert manifest.balance.pairs["reused"] == 0
    again = run(make_config(), run_date=DAY, load=forbidden())
    assert "reuse" not in again.degraded
    assert again.balance.pairs["published"] == 0


@pytest.mark.parametrize(
    ("table", "place"),
    [("reranked", "pages"), ("passage_tags", "pages"), ("reranked", "footer"), ("passage_tags", "lost")],
)
def test_damage_of_the_last_run_in_an_object_store_costs_time_not_truth(
    night: Night, make_config: MakeConfig, stored: dict[str, bytes], table: str, place: str
) -> None:
    """There its pages are not read before a worker needs them, and the night begins again when one is damaged."""
    output = store_night(night, stored)
    victim = min(one for one in stored if f"{output}/{night.manifest.tables[table].path}/part-" in one)
    damaged = bytearray(stored[victim])
    column = pq.ParquetFile(io.BytesIO(damaged)).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    damaged[len(damaged) - 40 if place == "footer" else start + column.total_compressed_size - 1] ^= 1
    stored[victim] = bytes(damaged)
    if place == "lost":
        del stored[victim]
    manifest = run(make_config(output={"path": output}), run_date=DAY, load=fake())
    assert victim in str(manifest.degraded["reuse"])
    assert (manifest.balance.pairs["reused"], manifest.previous_run_id) == (0, None)
    if place == "pages":
        alone = run(make_config(), run_date=DAY, load=fake())  # in a folder in which there is no run
        assert (manifest.run_id, hashes(manifest)) == (alone.run_id, hashes(alone))
    again = run(make_config(output={"path": output}), run_date=DAY, load=forbidden())
    assert "reuse" not in again.degraded
    assert again.balance.pairs["published"] == 0


@pytest.mark.parametrize("answered", [0, 1])
def test_a_store_that_does_not_answer_for_the_last_run_ends_the_night(
    night: Night,
    make_config: MakeConfig,
    stored: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    answered: int,
) -> None:
    """Its files may be whole, so that a later try reuses them: at the check of its footers, or in a worker."""
    output = store_night(night, stored)
    victim = min(one for one in stored if f"{output}/{night.manifest.tables['reranked'].path}/part-" in one)
    opened, real = [], MemoryFileSystem.open

    def slow_down(self: MemoryFileSystem, path: str, *rest: Any, **options: Any) -> Any:
        if path == victim:
            opened.append(path)
            if len(opened) > answered:
                raise OSError("slow down")
        return real(self, path, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", slow_down)
    with pytest.raises(Unanswered, match=rf"^{victim} could not be read: .*slow down") as raised:
        run(make_config(output={"path": output}), run_date=DAY, load=fake())
    assert raised.value.exit_code == 5
    assert len(opened) == answered + 1  # nor is the night begun a second time
    monkeypatch.setattr(MemoryFileSystem, "open", real)
    again = run(make_config(output={"path": output}), run_date=DAY, load=forbidden())
    assert again.balance.pairs["published"] == 0


def test_damage_that_a_second_look_does_not_find_ends_the_night(
    night: Night, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(night.output, tmp_path / "output")
    failed: list[str] = []

    def damaged(path: str, columns: Any) -> Any:
        failed.append(path)
        raise ManifestError(f"{path} is damaged: a bit was flipped on its way")

    monkeypatch.setattr("pipelines.nightly.previous.read_scores", damaged)
    with pytest.raises(ManifestError, match="on its way"):
        run(make_config(), run_date=DAY, load=fake())
    assert len(failed) == 1  # what it reuses is whole, so the same night would come to the same end


def store_night(night: Night, stored: dict[str, bytes]) -> str:
    """Put a published night into the store; its output folder."""
    output = "mem://bucket/output"
    for path in sorted(night.output.rglob("*")):
        if path.is_file() and path.name != "_lock":
            stored[f"{output}/{path.relative_to(night.output)}"] = path.read_bytes()
    return output


def hashes(manifest: Manifest) -> dict[tuple[str, str], str]:
    tables = manifest.tables.items()
    return {(name, file): info.sha256 for name, table in tables for file, info in table.files.items()}
