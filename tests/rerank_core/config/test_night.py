"""The configuration: strict, and its errors name the field, the value and the remedy."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from rerank_core.config.night import AT_STORES, PATHS, Config, load_config, parse_config, to_dict, window
from rerank_core.errors import ConfigError


def test_an_empty_file_is_the_default_night(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text("")

    assert load_config(tmp_path / "night.toml") == Config()


def test_values_arrive_in_their_places() -> None:
    config = parse_config(
        {
            "log": {"window_days": 3, "fields": {"query": "q"}, "filter": {"lang": "en"}},
            "candidates": {"unit": "sentence", "title_boost": 2},
            "mining": {"sampling": "random", "max_score": 0.8},
        }
    )

    assert (config.log.window_days, config.log.fields.query, config.log.filter) == (3, "q", {"lang": "en"})
    assert (config.candidates.unit, config.candidates.title_boost) == ("sentence", 2.0)
    assert (config.mining.sampling, config.mining.max_score) == ("random", 0.8)
    assert config.tags == Config().tags


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"candidates": {"topk": 5}},
            "unknown key 'candidates.topk'; the nearest known one is 'candidates.top_k'",
        ),
        ({"candidate": {}}, "unknown key 'candidate'; the nearest known one is 'candidates'"),
        (
            {"log": {"fields": {"clikcs": "c"}}},
            "'log.fields.clikcs'; the nearest known one is 'log.fields.clicks'",
        ),
        ({"candidates": {"top_k": "100"}}, "'candidates.top_k' = '100': .*integer"),
        ({"candidates": {"top_k": 1.5}}, "'candidates.top_k' = 1.5: .*integer"),
        ({"candidates": {"top_k": True}}, "'candidates.top_k' = True: .*integer"),
        ({"candidates": {"top_k": 0}}, "'candidates.top_k' = 0: .*greater than 0"),
        ({"tags": {"enabled": 1}}, "'tags.enabled' = 1: .*boolean"),
        ({"source": {"log": 7}}, "'source.log' = 7: .*string"),
        ({"mining": {"max_score": 1.1}}, "'mining.max_score' = 1.1: .*less than or equal to 1"),
        ({"mining": {"sampling": "best"}}, "'mining.sampling' = 'best': .*'top' or 'random'"),
        ({"scoring": 5}, "'scoring' = 5: "),
        (
            {"cascade": {"enabled": True, "max_loss": 0.01, "sample_queries": 98}},
            "a sample of 98 queries cannot show .* raise sample_queries to 99 at least",
        ),
        (
            {"candidates": {"window_words": 10, "window_stride": 20}},
            "window_stride 20 is larger than window_words 10: .*lower window_stride",
        ),
    ],
)
def test_a_mistake_is_named(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(raw, name="night.toml")


def test_a_filter_may_be_a_boolean_or_a_number() -> None:
    config = parse_config(
        {"log": {"filter": {"split": "dev", "bot": False, "n": 3, "share": 0.5, "whole": 3.0}}}
    )
    assert config.log.filter == {"split": "dev", "bot": "false", "n": "3", "share": "0.5", "whole": "3"}
    with pytest.raises(ConfigError, match=r"log\.filter\.split"):
        parse_config({"log": {"filter": {"split": ["dev"]}}})


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"mining": {"seed": "x", "num_negative": 3}}, name="night.toml")

    assert str(caught.value).startswith("night.toml: ")
    assert "mining.seed" in str(caught.value)
    assert "mining.num_negatives" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration at .*absent.toml"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path)
    (tmp_path / "bad.toml").write_text("[log\n")
    with pytest.raises(ConfigError, match=r"bad.toml is not valid TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"[source]\nlog = '\xe9'\n")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "latin.toml")


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "night.toml").write_text(
        '[source]\nlog = "queries.jsonl"\nindex = "../index"\n'
        '[output]\npath = "gs://bucket/runs"\n'
        f'[labels]\nqrels = "{tmp_path}/qrels.tsv"\n'
        '[evaluation]\nsentence_qrels = "s3://bucket/q.tsv"\n'
    )

    config = load_config(folder / "night.toml")

    assert config.source.log == str(folder / "queries.jsonl")
    assert config.source.index == str(tmp_path / "index")
    assert config.output.path == "gs://bucket/runs"
    assert config.labels.qrels == str(tmp_path / "qrels.tsv")
    assert config.evaluation.sentence_qrels == "s3://bucket/q.tsv"
    assert config.labels.queries == ""  # not configured stays so
    assert config.scoring.model == ""


@pytest.mark.parametrize(
    "key", [*(f"{section}.{key}" for section, keys in PATHS.items() for key in keys), "tags.recogniser_model"]
)
def test_an_address_is_taken_or_refused_with_the_remedy(key: str) -> None:
    *sections, name = key.split(".")
    several = key in ("promotion.judged_sets", "workers.shared_paths")
    raw: dict[str, Any] = {name: ["gs://bucket/a b"] if several else "gs://bucket/a b"}
    for section in reversed(sections):
        raw = {section: raw}
    if key in AT_STORES:
        parse_config(raw)
        return
    with pytest.raises(ConfigError, match=rf"^night.toml: {key}: gs://bucket/a b is an address.* copy it"):
        parse_config(raw, name="night.toml")


def test_a_model_of_a_hub_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    raw = {"scoring": {"model": "owner/name"}, "cascade": {"model": "mine"}}
    config = parse_config(raw, base=tmp_path)
    assert config.scoring.model == "owner/name"
    assert config.cascade.model == str(tmp_path / "mine")


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert parse_config({"output": {"path": "~/runs"}}).output.path == str(tmp_path / "runs")


def test_the_resolved_configuration_reads_back() -> None:
    config = parse_config({"log": {"filter": {"lang": "en"}}, "output": {"path": "/runs"}})

    assert parse_config(to_dict(config)) == config


def test_the_window_ends_with_the_run_date() -> None:
    start, end = window(datetime.date(2026, 3, 1), 7)

    assert start == datetime.datetime(2026, 2, 23, tzinfo=datetime.UTC)
    assert end == datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC)


@pytest.mark.parametrize("day", [datetime.date.min, datetime.date(2026, 3, 8), datetime.date.max])
@pytest.mark.parametrize("days", [1, 7, 10**30])
def test_a_window_stays_within_the_calendar(day: datetime.date, days: int) -> None:
    start, end = window(day, days)
    noon = datetime.datetime.combine(day, datetime.time(12), datetime.UTC)
    assert start <= noon < end
    assert days > 7 or (end - start).days <= days
