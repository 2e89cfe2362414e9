"""Vectors that are kept over nights: the same bits come back, or none."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.storage import vectors
from pipelines.storage.vectors import FOLDER, KeptVectors, keep_within
from rerank_core.scoring.protocol import Embedded

SIZE, MOST = 8, 10**9
BYTES = SIZE * 4 + 16 + 4  # of a vector, its key and its overflow


def key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def some(*names: str) -> dict[bytes, Embedded]:
    """A vector for each name, which follows from it."""
    made = {}
    for name in names:
        draw = np.random.default_rng(int.from_bytes(key(name)[:8], "little"))
        made[key(name)] = Embedded(draw.standard_normal(SIZE).astype(np.float32), len(name))
    return made


def write(folder: Path, *names: str, at: int = 0) -> None:
    """One file with the vectors of these names, written at that second."""
    before = set(folder.glob("*.arrow"))
    kept = KeptVectors(folder, most=MOST)
    kept.add(some(*names))
    kept.flush()
    for file in set(folder.glob("*.arrow")) - before:
        os.utime(file, (at, at))


def known(folder: Path, *names: str) -> set[str]:
    """The names whose vectors are found; each must have the bits that were written."""
    expected = some(*names)
    found = KeptVectors(folder, most=MOST).look_up(list(expected))
    for one, embedded in found.items():
        assert embedded.vector.tobytes() == expected[one].vector.tobytes()
        assert embedded.vector.dtype == np.float32
        assert embedded.overflow == expected[one].overflow
    return {name for name in names if key(name) in found}


@given(
    st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), max_size=4),
    st.sets(st.sampled_from("abcdefghij")),
)
def test_what_was_written_comes_back_bit_by_bit(written: list[set[str]], asked: set[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        held: dict[str, bytes] = {}
        patch.setattr(vectors, "write_bytes", lambda path, data: held.update({path: data}))
        for names in written:
            kept = KeptVectors(Path("folder"), most=MOST)
            kept.add(some(*names))
            kept.flush()
    parts = [
        vectors._part(reader.get_batch(0))
        for reader in (vectors.pa.ipc.open_file(vectors.pa.BufferReader(data)) for data in held.values())
    ]
    kept = KeptVectors(Path("folder"), most=MOST)
    kept._parts = parts
    expected = some(*asked)
    found = kept.look_up(list(expected))
    assert set(found) == {key(name) for name in asked & set().union(*written)}
    assert all(found[one].vector.tobytes() == expected[one].vector.tobytes() for one in found)


def test_files_of_a_folder(tmp_path: Path) -> None:
    assert known(tmp_path, "a") == set()
    write(tmp_path, "a", "b")
    write(tmp_path, "b", "c")
    assert known(tmp_path, "a", "b", "c", "d") == {"a", "b", "c"}
    (file, *_) = tmp_path.glob("*.arrow")
    assert file.stem == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_damaged_file_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a")
    (file,) = tmp_path.glob("*.arrow")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    write(tmp_path, "b")
    with caplog.at_level(logging.WARNING, "pipelines"):
        assert known(tmp_path, "a", "b") == {"b"}
    assert f"the kept vectors in {file} are not used" in caplog.text
    file.rename(file.with_name(f"{hashlib.sha256(b'no arrow').hexdigest()}.arrow"))
    file.with_name(f"{hashlib.sha256(b'no arrow').hexdigest()}.arrow").write_bytes(b"no arrow")
    assert known(tmp_path, "a", "b") == {"b"}


def test_nothing_new_is_kept_where_it_may_not_be(tmp_path: Path) -> None:
    kept = KeptVectors(tmp_path / "none", most=0)
    kept.add(some("a"))
    kept.flush()
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    kept = KeptVectors(tmp_path / "file", most=MOST)  # no folder can be made there
    kept.add(some("a"))
    kept.flush()


def test_a_night_writes_no_more_than_may_be_kept(tmp_path: Path) -> None:
    """What is beyond is embedded again another night; the disk does not fill before the night is over."""
    kept = KeptVectors(tmp_path, most=3 * SIZE * 4)
    for name in "abcdef":
        kept.add(some(name))
        kept.flush()
    assert known(tmp_path, *"abcdef") == set("abc")


def test_many_files_become_one_and_lose_nothing(tmp_path: Path) -> None:
    folder, names = tmp_path / FOLDER / "model", [f"n{n}" for n in range(40)]
    for n in range(0, 40, 2):
        write(folder, *names[n : n + 3], at=n)
    (folder / "_merged.tmp-1").write_text("of a killed night")
    keep_within(str(tmp_path), 1)
    assert len(list(folder.iterdir())) == 1
    assert known(folder, *names) == set(names)
    assert sum(len(part.rows) for file in folder.iterdir() for part in vectors._read(file)) == len(names)


def test_the_oldest_are_dropped_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "ROWS", 700)
    folder = tmp_path / FOLDER / "model"
    names = [f"n{n}" for n in range(40_000)]
    write(folder, *names[:20_000], at=1)
    write(folder, *names[20_000:], at=2)
    keep_within(str(tmp_path), 1)
    (file,) = folder.iterdir()
    assert 800_000 < file.stat().st_size <= 1_000_000
    left = known(folder, *names)
    assert left == set(names[20_000 : 20_000 + len(left)])
    assert len(left) == pytest.approx(900_000 / BYTES, abs=1)


def test_the_model_that_was_used_last_comes_first(tmp_path: Path) -> None:
    for n, model in enumerate(("old", "older", "new")):
        write(
            tmp_path / FOLDER / model,
            *(f"n{n}" for n in range(12_000)),
            at={"older": 1, "old": 2, "new": 3}[model],
        )
    keep_within(str(tmp_path), 1)
    names = [f"n{n}" for n in range(12_000)]
    left = {model: len(known(tmp_path / FOLDER / model, *names)) for model in ("new", "old", "older")}
    assert left["new"] == 12_000 > left["old"] > 10 * left["older"]
    assert sum(left.values()) * BYTES <= 1_000_000
    keep_within(str(tmp_path), 0)
    assert not list((tmp_path / FOLDER).iterdir())


def test_a_folder_without_vectors_is_left_alone(tmp_path: Path) -> None:
    keep_within(str(tmp_path), 1)
    assert not list(tmp_path.iterdir())
