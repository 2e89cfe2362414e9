"""The report lies beside the manifest, changes nothing of the run, and is written whole, also to an object store."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from pipelines.report import sample as samples
from pipelines.report.sample import Run, sample
from pipelines.report.write import choose_run, last_night, report_html, write_report, write_week
from pipelines.storage.clean import clean
from pipelines.storage.publish import publish
from pipelines.storage.runs import check_run, latest, moved, read_manifest, run_path, staging
from rerank_core.errors import DiskFull, OutputError
from schemas.errors import ManifestError
from tests.conftest import Night
from tests.pipelines.report.conftest import held_night
from tests.support.object_store import MemoryFileSystem
from tests.support.published_run import publish_run
from tests.support.tiny import published_bytes


def test_a_run_is_as_whole_with_its_report(published: Night) -> None:
    before = published_bytes(published.output, published.manifest)
    path = Path(write_report(str(published.output), published.manifest))
    assert path == published.output / run_path("2026-03-08", published.manifest.run_id) / "report.html"
    clean(str(published.output))
    check_run(str(published.output), published.manifest)
    assert path.is_file()
    assert published_bytes(published.output, published.manifest) == before
    assert latest(str(published.output)) == published.manifest


def test_a_run_that_is_published_again_keeps_its_files(published: Night) -> None:
    write_report(str(published.output), published.manifest)
    target = Path(staging(str(published.output), published.manifest.run_id))
    for name, info in published.manifest.tables.items():
        shutil.copytree(published.output / info.path, target / name)
    again = publish(str(published.output), published.manifest)
    assert "replaced" not in again.degraded
    check_run(str(published.output), again)


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [(errno.EACCES, OutputError, r"cannot write .*report\.html"), (errno.ENOSPC, DiskFull, "No space left")],
)
def test_one_that_cannot_be_written_leaves_the_earlier_report(
    published: Night, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], told: str
) -> None:
    path = Path(write_report(str(published.output), published.manifest))
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pipelines.storage.filesystem.os.replace", refuse)
    with pytest.raises(kind, match=told):
        write_report(str(published.output), dataclasses.replace(published.manifest, seconds=99.0))
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir() if found.name.startswith("_")] == []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(MemoryFileSystem, "objects", {})
    return "mem://bucket/output"


def test_in_an_object_store_it_says_the_same(published: Night, store: str) -> None:
    for path in sorted(published.output.rglob("*")):
        if path.is_file():
            MemoryFileSystem.objects[f"{store}/{path.relative_to(published.output)}"] = path.read_bytes()
    there = write_report(store, published.manifest)
    here = report_html(str(published.output), published.manifest)
    assert MemoryFileSystem.objects[there].decode() == here
    assert not [name for name in MemoryFileSystem.objects if ".tmp-" in name]
    assert MemoryFileSystem.objects[write_week(store)]


def test_the_newest_run_is_chosen_held_or_not(night: Night, tmp_path: Path) -> None:
    output, held = held_night(night, tmp_path)
    chosen, is_held = choose_run(str(output))
    assert (chosen.run_id, is_held) == (held.run_id, True)
    assert choose_run(str(output), night.manifest.run_id) == (night.manifest, False)
    assert choose_run(str(output), held.run_id) == (chosen, True)
    shutil.rmtree(output / "_held")
    assert choose_run(str(output)) == (night.manifest, False)
    with pytest.raises(ManifestError, match="no run 'nosuch'"):
        choose_run(str(output), "nosuch")
    with pytest.raises(ManifestError, match="no published run"):
        choose_run(str(tmp_path / "nowhere"))


def test_last_night_is_the_one_compared_with_or_reused_or_the_last_before(tmp_path: Path) -> None:
    one, two = (publish_run(tmp_path, run_id=f"2026-{name}", queries=5) for name in ("one", "two"))
    later = dataclasses.replace(one, run_id="2026-later", run_date="2026-03-10", drift=None)

    def found(**changes: object) -> str | None:
        run = last_night(str(tmp_path), dataclasses.replace(later, **changes))  # type: ignore[arg-type]
        return run.manifest.run_id if run else None

    assert found(drift={"previous": two.run_id}, previous_run_id=one.run_id) == two.run_id
    assert found(previous_run_id=one.run_id) == one.run_id
    assert found(previous_run_id="2026-gone") == two.run_id
    assert found(run_date="2026-03-08") is None


def test_of_a_large_run_evenly_spaced_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = publish_run(tmp_path, run_id="2026-large", queries=400, shards=40)
    run = Run(str(tmp_path), manifest)
    assert sample(run, "reranked").whole
    found = sample(run, "reranked", max_rows=400)
    assert (len(found.files), found.of, found.whole) == (10, 40, False)
    assert len(set(found.files)) == 10
    assert sample(run, "no_such_table").files == []
    monkeypatch.setattr(samples, "MAX_ROWS", 400)
    assert len(sample(run, "reranked").files) == 10
    page = report_html(str(tmp_path), dataclasses.replace(manifest, drift=None, mining={}, config={}))
    assert re.search(
        r"Read for 1\d\d of 400 queries, in files evenly spaced from the most frequent",
        " ".join(page.split()),
    )


def test_a_damaged_table_is_named(published: Night) -> None:
    info = published.manifest.tables["reranked"]
    path = published.output / info.path / min(info.files)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 - 40 : len(data) // 2 + 40] = bytes(80)
    path.write_bytes(bytes(data))
    with pytest.raises(ManifestError, match="part-"):
        write_report(str(published.output), published.manifest)


def test_a_week_has_a_line_for_each_run_and_names_what_is_missing(night: Night, tmp_path: Path) -> None:
    output, held = held_night(night, tmp_path)
    for days in (1, 2, 5, 9):
        date = (datetime.date(2026, 3, 9) - datetime.timedelta(days=days)).isoformat()
        base = read_manifest(str(output), "2026-03-08", night.manifest.run_id)
        if days > 1:
            other = dataclasses.replace(base, run_id=f"2026-{days}", run_date=date)
            target = Path(staging(str(output), other.run_id))
            for name, info in base.tables.items():
                shutil.copytree(output / info.path, target / name)
            publish(str(output), moved(other, run_path(date, other.run_id)))
    write_report(str(output), held, held=True)
    path = Path(write_week(str(output)))
    page = path.read_text()
    assert path == output / "week.html"
    assert page.count("✓ published") == 3
    assert page.count("■ held") == 1
    assert "2026-02-28" not in page  # nine days before
    assert "No run of <bdi>Thursday, 5 March 2026</bdi>; <bdi>Friday, 6 March 2026</bdi>." in page
    assert page.count("report.html") == 1  # the others have none yet
    elsewhere = Path(write_week(str(output), str(tmp_path / "elsewhere.html")))
    assert "report.html" not in elsewhere.read_text()
    with pytest.raises(ManifestError, match="no run in"):
        write_week(str(tmp_path / "nowhere"))
