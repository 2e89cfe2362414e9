"""A corpus and a log that change a little from night to night, for nights that are compared with earlier ones."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from schemas.manifest import Manifest
from tests.support.fakes import fake
from tests.support.tiny import write_lines

FIRST_DAY = datetime.date(2026, 3, 2)
WORDS = [
    f"{start}{end}"
    for start in ("bar", "cor", "den", "fal", "gim", "hol", "jen", "kar", "lom", "mer", "nor", "pel")
    for end in ("a", "en", "ist", "ock", "und")
]


class World(NamedTuple):
    """Where nights read and write."""

    folder: Path
    documents: int = 250
    queries: int = 60

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def corpus(
        self, *, number: int = 0, documents: int | None = None, name: str = "d"
    ) -> list[dict[str, Any]]:
        """Documents of which every fiftieth is another one each night; with another `name` all are others."""
        found = []
        for n in range(self.documents if documents is None else documents):
            version = number if n % 50 == number % 50 else 0
            words = random.Random(f"{name}{n}/{version}").choices(WORDS, k=20)
            text = " ".join(words).capitalize() + "."
            found.append(
                {"_id": f"{name}{n}", "title": words[0].capitalize(), "text": text, "sentences": [text]}
            )
        return found

    def log(self, *, number: int = 0, queries: int | None = None) -> list[dict[str, Any]]:
        """Events of which a tenth of the queries is new each night."""
        events = []
        for n in range(self.queries if queries is None else queries):
            version = number if n % 10 == number % 10 else 0
            random_source = random.Random(f"q{n}/{version}")
            query = " ".join(random_source.sample(WORDS, 3))
            events += [self._event(number, query, n)] * random_source.randint(1, 3)
        return events

    def _event(self, number: int, query: str, user: int) -> dict[str, Any]:
        at = f"{self.day(number).isoformat()}T10:00:00Z"
        return {"timestamp": at, "query": query, "user": f"u{user}", "clicks": [], "impressions": []}

    def day(self, number: int) -> datetime.date:
        return FIRST_DAY + datetime.timedelta(days=number)

    def config(self, **sections: dict[str, Any]) -> Config:
        raw: dict[str, dict[str, Any]] = {
            "source": {"log": str(self.folder / "log.jsonl"), "index": str(self.folder / "index")},
            "log": {"window_days": 1},
            "candidates": {"top_k": 20},
            "evidence": {"top_n": 0},
            "output": {"path": str(self.output), "max_rejected_share": 0.9},
            "tags": {"recogniser": "rules"},
        }
        for name, values in sections.items():
            raw[name] = raw.get(name, {}) | values
        return parse_config(raw)

    def write(
        self, number: int, *, corpus: Iterable[dict[str, Any]] | None = None, log: Iterable[Any] | None = None
    ) -> None:
        """Put the index and the log of night `number` in place: those of a stable world, unless given."""
        documents = self.corpus(number=number) if corpus is None else corpus
        build_index(write_lines(self.folder / "corpus.jsonl", documents), self.folder / "index")
        write_lines(self.folder / "log.jsonl", self.log(number=number) if log is None else log)

    def night(
        self,
        number: int,
        *,
        corpus: Iterable[dict[str, Any]] | None = None,
        log: Iterable[Any] | None = None,
        load: Any = None,
        **sections: dict[str, Any],
    ) -> Manifest:
        """Run night `number`, from 0, on what `write` puts in place."""
        self.write(number, corpus=corpus, log=log)
        return run(self.config(**sections), run_date=self.day(number), load=load or fake())
