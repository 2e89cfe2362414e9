"""The same look-ups in an object store, by pyarrow's own client of S3 over HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nightrank import read
from pipelines.storage import runs
from tests.support.published_run import RUN_DATE, publish_run, text
from tests.support.s3_server import s3_bucket


def test_a_bucket_is_read_like_a_folder(tmp_path: Path) -> None:
    publish_run(tmp_path / "out", run_id="r1")
    with s3_bucket(tmp_path) as (client, requests), read.open(str(tmp_path / "out")) as local:
        with read.open("bucket/out", filesystem=client) as reader:
            assert [reader.lookup(text(n)) for n in range(60)] == [local.lookup(text(n)) for n in range(60)]
            assert list(reader.queries()) == list(local.queries())
            assert reader.lookup("what is the query number 4", nearest=True).query == text(4)
            assert reader.lookup("never asked", default=None) is None
        with read.open("bucket/out", run_id="r1", filesystem=client) as reader:
            del requests[:]
            reader.lookup(text(1))
            cold = len(requests)
            reader.lookup(text(1))
        # For a file the size, the footer and the columns, which are read at once; afterwards the columns alone.
        assert (cold, len(requests) - cold) == (6, 2)


def test_runs_come_and_go_in_a_bucket(tmp_path: Path) -> None:
    publish_run(tmp_path / "out", run_id="r1")
    with s3_bucket(tmp_path) as (client, _):
        with pytest.raises(read.ManifestError, match="no published run in bucket/elsewhere"):
            read.open("bucket/elsewhere", filesystem=client)
        pinned = read.open("bucket/out", filesystem=client)
        newest = read.open("bucket/out", follow=True, check_seconds=0, filesystem=client)
        publish_run(tmp_path / "out", run_id="r2")
        shutil.rmtree(tmp_path / "out" / runs.run_path(RUN_DATE, "r1"))
        with pytest.raises(read.RunRemoved, match="run r1 was removed from bucket/out"):
            pinned.lookup(text(1))
        assert newest.lookup(text(1)).run_id == "r2"
