"""Pages of every kind of night: what each says, and that no text of a corpus, a log or a machine is markup."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pipelines.report import models
from pipelines.report.write import report_html, write_report
from schemas.manifest import Manifest
from tests.pipelines.report.conftest import DECISIONS, MODEL, Kinds
from tests.support.hostile import MARKUP

VOID = {"meta", "link", "br"}
KINDS = ("judged", "first", "held", "empty", "ids", "cut", "sentences", "hostile")


class Elements(HTMLParser):
    """A page's tags, attributes and text, and whether its elements nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_and_asks_for_nothing(kinds: Kinds, kind: str) -> None:
    output, manifest, held = kinds(kind)
    page = Elements(report_html(str(output), manifest, held=held))
    assert {"script", "img", "iframe", "object", "form", "base"}.isdisjoint(page.tags)
    assert page.tags.count("style") == page.tags.count("h1") == page.tags.count("main") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("style", "src")]
    links = [value for name, value in page.attributes if name == "href"]
    names = [value for name, value in page.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert {link for link in links if link != "data:,"} <= {f"#{name}" for name in names}
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert page.text.startswith(f"{'Held back' if held else 'Published'}: night of {manifest.run_date}")
    assert manifest.run_id in page.text
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", page.text) or kind == "hostile"


SAYS = {
    "judged": [
        "Published", "points nDCG@10 from", "95 % interval", "judged queries of both nights",
        "After that a step failed: train", "Training failed . no <b>disk</b> left", "are ranked better than by BM25",
        "judged relevant", "judgements; what is not judged", "Steps of the night", "lists of both nights changed",
    ],
    "first": [
        "first night", "There is no earlier night", "No judgements are configured", "5 of 14 events (36 %)",
        "bad_json", "The first 1 of 1", "clicks, which say little", "Events: 14 read. ✓ The counts balance.",
        "rule top",
    ],
    "held": [
        "Held back", "readers keep the lists of Sunday, 8 March 2026", "PSI of the scores is 0.31", "nightrank release",
        "■ holds", "ReadQueryLog/bad_json: share of records", "2 lists are of an earlier night", "2 of 2026-03-08",
    ],
    "empty": [
        "Mining is off", "Whether scores are reliable cannot be said", "Clicks are taken as they are", "Dead letters",
        "there is no earlier night to compare with",
    ],
    "ids": ["dune", "chain: query"],
    "cut": ["not measured", "Lists are cut at ranking.top_n"],
    "sentences": ["The log says of no event which documents were shown"],
    "hostile": ["32 of 65 events (49 %)", "<script>alert(1)</script>", "{{ 7 * 7 }}"],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_became_of_the_night(kinds: Kinds, kind: str) -> None:
    output, manifest, held = kinds(kind)
    text = Elements(report_html(str(output), manifest, held=held)).text
    assert [words for words in SAYS[kind] if words not in text] == []
    unexpected = {"held": ["Readers get the lists"], "ids": ["Frank Herbert was born", "newspapers"]}
    assert [words for words in unexpected.get(kind, []) if words in text] == []


def test_the_same_night_gives_the_same_page(kinds: Kinds) -> None:
    output, manifest, held = kinds("judged")
    assert report_html(str(output), manifest, held=held) == report_html(str(output), manifest, held=held)


def test_texts_of_the_run_itself_are_escaped_too(kinds: Kinds) -> None:
    """Whatever a manifest holds: reasons, names of models, keys and values of the configuration."""
    output, manifest, _ = kinds("first")
    for text in MARKUP:
        hostile = dataclasses.replace(
            manifest,
            degraded={"reuse": text, text: 10**6},
            rejected={f"{text}/{text}": 5},
            drift={"verdict": text, "reasons": [text], "measures": {text: {"verdict": text}}},
            model={
                "id": text,
                "state": text,
                "lineage": {"parent": {"name": text}, "figures": [{"stage": text}]},
            },
            config=manifest.config | {text: {text: text}, "output": manifest.config["output"]},
            stages=manifest.stages | {text: {"seconds": 1.0}},
            mining={"kept": {text: 1}, "rejected": {}},
        )
        page = Elements(report_html(str(output), hostile))
        assert {"script", "img", "base"}.isdisjoint(page.tags)


def test_a_model_has_its_lineage_and_what_was_decided(kinds: Kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    output, manifest, _ = kinds("first")
    monkeypatch.setattr(models, "read_decisions", lambda _: DECISIONS)
    text = Elements(report_html(str(output), dataclasses.replace(manifest, model=MODEL))).text
    for words in (
        "20260301-aaaaaaaaaaaa",
        "20260228-bbbbbbbbbbbb of 2026-02-28",
        "one 40 0.21 81.0 −1.2",
        "Candidate model 20260308-0123456789ab was not promoted",
        "nDCG@10 fell by 0.031",
        "worse on nq ✗ failed −0.031 −0.005",
    ):
        assert words in text, words


def test_a_registry_that_cannot_be_reached_costs_no_report(
    kinds: Kinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, manifest, _ = kinds("first")
    monkeypatch.setattr(models, "read_decisions", Mock(side_effect=ConnectionError("no route to the bucket")))
    assert "no route to the bucket" in Elements(report_html(str(output), manifest)).text


def test_judgements_that_are_gone_are_said_to_be(kinds: Kinds, tmp_path: Path) -> None:
    output, manifest, _ = kinds("judged")
    evaluation = manifest.config["evaluation"] | {"queries": str(tmp_path / "moved.jsonl")}
    gone = dataclasses.replace(manifest, config=manifest.config | {"evaluation": evaluation})
    text = Elements(report_html(str(output), gone)).text
    assert "The judgements cannot be read here" in text
    assert "nDCG@10 from" in text  # of the manifest


def test_it_is_written_beside_the_manifest(kinds: Kinds) -> None:
    output, manifest, held = kinds("held")
    path = Path(write_report(str(output), manifest, held=held))
    assert path == output / "_held" / "run_date=2026-03-09" / "run_id=20260309-held" / "report.html"
    assert (path.parent / "manifest.json").is_file()


def test_costs_are_reckoned_where_an_hour_has_a_price(kinds: Kinds) -> None:
    output, manifest, _ = kinds("first")
    plan: dict[str, Any] = {**manifest.config["plan"], "cost_per_hour": 3.0}
    priced: Manifest = dataclasses.replace(manifest, seconds=1800.0, config=manifest.config | {"plan": plan})
    assert "Cost 1.50 at plan.cost_per_hour = 3" in Elements(report_html(str(output), priced)).text
