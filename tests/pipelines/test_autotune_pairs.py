"""The pairs to measure engines by: a few of the night's own, or those of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import autotune
from pipelines.sources.local.source import LocalSource
from rerank_core.config.night import Config
from rerank_core.errors import SourceError
from rerank_core.inference.batching import Pair
from rerank_core.text import query_id
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, QUERIES, TIME, event, write_lines


def sampled(config: Config) -> list[list[Pair]]:
    return autotune.sample(config, LocalSource(config), run_date=DAY)


def test_a_sample_is_the_same_pairs_again(make_config: MakeConfig) -> None:
    groups = sampled(make_config())
    assert groups == sampled(make_config())
    assert {query for group in groups for query, _ in group} == set(QUERIES)
    for group in groups:
        assert len({query for query, _ in group}) == 1
        assert len(set(group)) == len(group)
    dune = next(group for group in groups if group[0][0] == "Who wrote Dune")
    assert ("Who wrote Dune", "Dune is a novel by Frank Herbert. It was published in 1965.") in dune


def test_a_sample_is_small_and_holds_the_lowest_ids(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"dune {n}" for n in range(20)]
    log = write_lines(tmp_path / "log.jsonl", [event(text) for text in texts])
    config = make_config(source={"log": str(log)})
    monkeypatch.setattr(autotune, "PAIRS_A_QUERY", 2)
    groups = sampled(config)
    lowest = sorted(texts, key=query_id)[: autotune.QUERIES]
    assert [group[0][0] for group in groups] == lowest
    assert {len(group) for group in groups} == {2}
    write_lines(log, [event(text) for text in texts[::-1] * 2])  # their order and number do not matter
    assert sampled(config) == groups


def test_a_query_without_candidates_is_left_out(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("qqqq zzzz"), event("tacoma")])
    groups = sampled(make_config(source={"log": str(log)}))
    assert [group[0][0] for group in groups] == ["tacoma"]
    write_lines(log, [event("qqqq zzzz")])
    with pytest.raises(SourceError, match=r"no query with candidates.*nightrank autotune --pairs"):
        sampled(make_config(source={"log": str(log)}))


def test_a_sample_is_of_the_window(make_config: MakeConfig, tmp_path: Path) -> None:
    events = [event("tacoma", at=TIME), event("seattle", at="2020-01-01T00:00:00Z")]
    log = write_lines(tmp_path / "log.jsonl", events)
    groups = sampled(make_config(source={"log": str(log)}, candidates={"unit": "sentence"}))
    assert [group[0][0] for group in groups] == ["tacoma"]
    assert ("tacoma", "Tacoma is a city in Washington.") in groups[0]


def test_pairs_of_a_file_are_grouped_by_query(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("a", "3")]
    path = write_lines(tmp_path / "pairs.jsonl", [{"query": q, "passage": p, "more": 0} for q, p in rows])
    assert autotune.read_pairs(path) == [[("a", "1"), ("a", "3")], [("b", "2")]]


@pytest.mark.parametrize(
    "line",
    ["no json", "", "[]", '"text"', '{"query": "a"}', '{"query": ["a"], "passage": "b"}',
     '{"query": "a", "passage": null}', '{"query": 1, "passage": "b"}'],
)  # fmt: skip
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [{"query": "a", "passage": "b"}, line])
    with pytest.raises(SourceError, match=r'pairs.jsonl, line 2: not a \{"query": ..., "passage": ...\}'):
        autotune.read_pairs(path)


def test_a_file_without_pairs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(SourceError, match="cannot read"):
        autotune.read_pairs(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="holds no pair"):
        autotune.read_pairs(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(SourceError, match="cannot read"):
        autotune.read_pairs(path)
