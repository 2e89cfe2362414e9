"""Generate the sample query log: seven days of searches and clicks with a known truth.

The log is synthetic and deterministic: the same arguments give the same bytes on every machine. Only the
standard library is used, and every draw goes through ``random.Random(seed).random()``, whose sequence does
not change between Python versions. Since the relevance behind the clicks is known (``qrels/dev.tsv``), a
method that estimates relevance from the clicks, or removes their position bias, can be checked against it.

The model
---------
Queries. The query texts are put in a random order; the one of rank ``k`` is drawn with a probability
proportional to ``1 / k ** ZIPF_EXPONENT``.

Surface. A typed query is a variant of the text in ``queries.jsonl``: its letters are lower-cased, kept, put
in title case or in upper case (``CASE_WEIGHTS``); with ``SPACE_RATE`` a blank is doubled or put at an end;
with ``PUNCTUATION_RATE`` the trailing punctuation is replaced. Case folding, collapsing blanks and stripping
trailing punctuation (see ``normalise``) undoes all of this. With ``MISSPELLING_RATE`` one word of five or
more letters gets a swapped, dropped or doubled letter, which ``normalise`` does not undo.

Ranking. The documents shown are the ten with the highest sum of idf over the distinct words that the typed
query shares with title and text, divided by the square root of the passage length. Each score is multiplied
by a uniform factor of ``1 - JITTER`` to ``1 + JITTER``, drawn anew for every event, so that a document is
seen at several ranks; otherwise the effects of relevance and rank could not be separated.

Clicks. A position-based model. The document at rank ``r`` (from 1) is examined with probability
``1 / r ** ETA`` and, if examined, clicked with probability ``CLICK_RELEVANT`` when the qrels hold it for the
query and ``CLICK_OTHER`` when they do not. Examinations are independent.

Users and sessions. Each of ``HUMAN_USERS`` users has a weight ``1 / k ** USER_EXPONENT``. A session has one
to five queries, 15 to 180 seconds apart; it starts at an hour drawn from ``HOUR_WEIGHTS`` on a day drawn
from ``WEEKDAY_WEIGHTS``. With ``RETRY_RATE`` a misspelt query is followed by the same query spelt correctly,
which may make the session one query longer.

Heavy users. ``BOT_SHARE`` of the events come from bot-like users, in equal parts: a monitor that repeats the
three most frequent queries at regular times and never clicks, a scraper that walks through all queries at
night and always clicks the first result, and a crawler that clicks every result shown.

Each line of the output is one event: ``timestamp`` (ISO 8601, UTC), ``query`` (as typed), ``user`` (salted
hash), ``clicks`` (doc ids, in rank order) and ``impressions`` (doc ids in the order shown, at most ten).
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import math
import random
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

DATA_DIR = Path(__file__).resolve().parent

ZIPF_EXPONENT = 0.9
CASE_WEIGHTS = {"lower": 0.55, "keep": 0.33, "title": 0.08, "upper": 0.04}
SPACE_RATE = 0.08
PUNCTUATION_RATE = 0.15
TRAILING = ("", "?", " ?", "??", ".", "!", "...")
MISSPELLING_RATE = 0.075
MISSPELT_MIN_LENGTH = 5

SHOWN = 10
JITTER = 0.25

ETA = 1.0
CLICK_RELEVANT = 0.70
CLICK_OTHER = 0.06

HUMAN_USERS = 400
USER_EXPONENT = 0.6
USER_SALT = "nightrank-sample"
SESSION_LENGTH_WEIGHTS = (0.45, 0.27, 0.15, 0.08, 0.05)
GAP_SECONDS = (15, 180)
RETRY_RATE = 0.5
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 14, 16, 18, 18, 16, 14, 12, 12, 13, 12, 8, 4)
WEEKDAY_WEIGHTS = (1.0, 1.05, 1.05, 1.0, 0.9, 0.6, 0.65)
BOT_SHARE = 0.08

T = TypeVar("T")


class Query(NamedTuple):
    """A query with its text and the ids of its relevant documents."""

    query_id: str
    text: str
    relevant: frozenset[str]


class Event(NamedTuple):
    """One search. ``click_mode`` says how its clicks arise: ``model``, ``none``, ``first`` or ``all``."""

    time: dt.datetime
    user: str
    query: Query
    typed: str
    click_mode: str


def normalise(query: str) -> str:
    """Fold case, collapse blanks and strip trailing punctuation."""
    return re.sub(r"[\s?!.]+$", "", " ".join(query.casefold().split()))


def tokenise(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"\w+", text.casefold())


def load_queries(data_dir: Path) -> list[Query]:
    """Read the queries with their relevant documents, in file order."""
    relevant: dict[str, set[str]] = defaultdict(set)
    qrels = (data_dir / "qrels" / "dev.tsv").read_text(encoding="utf-8").splitlines()
    for line in qrels[1:]:
        query_id, doc_id, score = line.split("\t")
        if int(score) > 0:
            relevant[query_id].add(doc_id)
    lines = (data_dir / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Query(row["_id"], row["text"], frozenset(relevant[row["_id"]])) for row in rows]


class Ranker:
    """Rank passages by the idf of the words they share with a query."""

    def __init__(self, data_dir: Path) -> None:
        self._postings: dict[str, list[str]] = defaultdict(list)
        self._norm: dict[str, float] = {}
        for line in (data_dir / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            words = tokenise(f"{row['title']} {row['text']}")
            self._norm[row["_id"]] = math.sqrt(len(words))
            for word in sorted(set(words)):
                self._postings[word].append(row["_id"])
        self._cache: dict[str, dict[str, float]] = {}

    def scores(self, query: str) -> dict[str, float]:
        """Score of every passage that shares a word with the query, rounded so that ties are stable."""
        key = normalise(query)
        if key not in self._cache:
            total: dict[str, float] = defaultdict(float)
            for word in sorted(set(tokenise(key))):
                doc_ids = self._postings.get(word, [])
                for doc_id in doc_ids:
                    total[doc_id] += math.log(1 + len(self._norm) / len(doc_ids))
            self._cache[key] = {doc_id: round(s / self._norm[doc_id], 6) for doc_id, s in total.items()}
        return self._cache[key]

    def shown(self, query: str, rng: random.Random) -> list[str]:
        """Ids of the best passages for one event, best first, with jittered scores."""
        scores = self.scores(query)
        jittered = {d: scores[d] * (1 - JITTER + 2 * JITTER * rng.random()) for d in sorted(scores)}
        return sorted(jittered, key=lambda doc_id: (-jittered[doc_id], doc_id))[:SHOWN]


def draw(rng: random.Random, items: Sequence[T], weights: Sequence[float]) -> T:
    """Draw one item with a probability proportional to its weight."""
    bounds = list(accumulate(weights))
    return items[min(bisect_right(bounds, rng.random() * bounds[-1]), len(items) - 1)]


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Draw one item uniformly."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """A copy of the items in random order."""
    return [item for _, _, item in sorted((rng.random(), number, item) for number, item in enumerate(items))]


def misspell(rng: random.Random, text: str) -> str:
    """Swap, drop or double one inner letter of one longer word."""
    spans = [m.span() for m in re.finditer(r"[^\W\d_]+", text) if len(m.group()) >= MISSPELT_MIN_LENGTH]
    if not spans:
        return text
    start, end = pick(rng, spans)
    at = start + 1 + int(rng.random() * (end - start - 2))
    kind = pick(rng, ("swap", "drop", "double"))
    if kind == "swap" and text[at].casefold() != text[at + 1].casefold():
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == "double":
        return text[: at + 1] + text[at:]
    return text[:at] + text[at + 1 :]


def vary(rng: random.Random, text: str) -> str:
    """Vary case, blanks and trailing punctuation, none of which changes the normalised query."""
    case = draw(rng, tuple(CASE_WEIGHTS), tuple(CASE_WEIGHTS.values()))
    if case == "lower":
        text = text.lower()
    elif case == "upper":
        text = text.upper()
    elif case == "title":
        text = " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    if rng.random() < PUNCTUATION_RATE:
        text = re.sub(r"[\s?!.]+$", "", text) + pick(rng, TRAILING)
    if rng.random() < SPACE_RATE:
        kind = pick(rng, ("double", "leading", "trailing"))
        if kind == "double":
            words = text.split(" ")
            gap = 1 + int(rng.random() * (len(words) - 1))
            text = " ".join(words[:gap]) + "  " + " ".join(words[gap:])
        else:
            text = f" {text}" if kind == "leading" else f"{text} "
    return text


def user_hash(name: str) -> str:
    """Salted hash of a user name, as a search log would hold it."""
    return hashlib.sha256(f"{USER_SALT}:{name}".encode()).hexdigest()[:16]


def clicks_for(rng: random.Random, shown: Sequence[str], relevant: frozenset[str], mode: str) -> list[str]:
    """Draw the clicked documents among those shown."""
    if mode == "none":
        return []
    if mode == "first":
        return list(shown[:1])
    if mode == "all":
        return list(shown)
    clicks = []
    for rank, doc_id in enumerate(shown, start=1):
        examined = rng.random() < 1 / rank**ETA
        clicked = rng.random() < (CLICK_RELEVANT if doc_id in relevant else CLICK_OTHER)
        if examined and clicked:
            clicks.append(doc_id)
    return clicks


def bot_events(ranked: Sequence[Query], count: int, start: dt.datetime, days: int) -> list[Event]:
    """Events of the monitor, the scraper and the crawler."""
    shares = [count // 3 + (1 if number < count % 3 else 0) for number in range(3)]
    events = []
    seconds = days * 86400
    monitor, scraper, crawler = (user_hash(name) for name in ("monitor", "scraper", "crawler"))
    for number in range(shares[0]):
        query = ranked[number % min(3, len(ranked))]
        time = start + dt.timedelta(seconds=number * seconds // shares[0])
        events.append(Event(time, monitor, query, query.text, "none"))
    walk = sorted(ranked)
    for number in range(shares[1]):
        query = walk[number % len(walk)]
        time = start + dt.timedelta(days=(days - 1) // 2, hours=3, seconds=2 * number)
        events.append(Event(time, scraper, query, query.text.lower(), "first"))
    for number in range(shares[2]):
        query = walk[-1 - number % len(walk)]
        time = start + dt.timedelta(days=days - 1, hours=1, seconds=5 * number)
        events.append(Event(time, crawler, query, query.text, "all"))
    return events


def human_events(
    rng: random.Random, ranked: Sequence[Query], count: int, start: dt.datetime, days: int
) -> list[Event]:
    """Events of the human users, session by session, until there are ``count``."""
    query_weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(ranked) + 1)]
    users = [user_hash(f"user-{number}") for number in range(HUMAN_USERS)]
    user_weights = [1 / place**USER_EXPONENT for place in range(1, HUMAN_USERS + 1)]
    day_weights = [WEEKDAY_WEIGHTS[(start + dt.timedelta(days=day)).weekday()] for day in range(days)]
    end = start + dt.timedelta(days=days)
    events: list[Event] = []
    while len(events) < count:
        user = draw(rng, users, user_weights)
        day = draw(rng, range(days), day_weights)
        hour = draw(rng, range(24), HOUR_WEIGHTS)
        time = start + dt.timedelta(days=day, hours=hour, seconds=int(rng.random() * 3600))
        length = draw(rng, range(1, len(SESSION_LENGTH_WEIGHTS) + 1), SESSION_LENGTH_WEIGHTS)
        retry: Query | None = None
        while length > 0 or retry is not None:
            query = retry if retry is not None else draw(rng, ranked, query_weights)
            wrong = retry is None and rng.random() < MISSPELLING_RATE
            retry = query if wrong and rng.random() < RETRY_RATE else None
            typed = vary(rng, misspell(rng, query.text) if wrong else query.text)
            if time < end and len(events) < count:
                events.append(Event(time, user, query, typed, "model"))
            low, high = GAP_SECONDS
            time += dt.timedelta(seconds=low + int(rng.random() * (high - low + 1)))
            length -= 1
    return events


def generate(seed: int, events: int, days: int, start: dt.date, data_dir: Path = DATA_DIR) -> list[dict]:
    """Generate the log as a list of records, sorted by time."""
    rng = random.Random(seed)
    midnight = dt.datetime(start.year, start.month, start.day, tzinfo=dt.UTC)
    ranked = shuffled(rng, load_queries(data_dir))
    bots = bot_events(ranked, round(events * BOT_SHARE), midnight, days)
    humans = human_events(rng, ranked, events - len(bots), midnight, days)
    ranker = Ranker(data_dir)
    records = []
    for event in sorted(bots + humans, key=lambda e: e.time):
        shown = ranker.shown(event.typed, rng)
        records.append(
            {
                "timestamp": event.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "query": event.typed,
                "user": event.user,
                "clicks": clicks_for(rng, shown, event.query.relevant, event.click_mode),
                "impressions": shown,
            }
        )
    return records


def main(argv: Sequence[str] | None = None) -> None:
    """Write the log and print a line about it."""
    parser = argparse.ArgumentParser(description="Generate the sample query log.")
    parser.add_argument("--seed", type=int, default=7, help="seed of the random generator (default: 7)")
    parser.add_argument("--events", type=int, default=3000, help="number of events (default: 3000)")
    parser.add_argument("--days", type=int, default=7, help="number of days (default: 7)")
    parser.add_argument("--start", type=dt.date.fromisoformat, default=dt.date(2026, 3, 2), help="first day")
    parser.add_argument("--out", type=Path, default=Path("sample_data/query_log.jsonl"), help="output file")
    args = parser.parse_args(argv)
    if args.events < 1 or args.days < 1:
        parser.error("--events and --days must be positive")
    records = generate(args.seed, args.events, args.days, args.start)
    with args.out.open("w", encoding="utf-8", newline="\n") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    users = Counter(record["user"] for record in records)
    print(f"{args.out}: {len(records)} events, {len(users)} users")


if __name__ == "__main__":
    main()
