"""The units in which a document is scored: the whole passage, its sentences, or overlapping windows."""

from __future__ import annotations

import re

from rerank_core.config.source import Candidates
from rerank_core.text import clean
from schemas.records import Candidate, Document

# Always succeeds where it starts and gives nothing back (possessive), so a run of 100,000 dots is read once.
_END = re.compile(r"([.!?…]++|[。！？]++)((?:[\"'”’»)\]}」』]|\[\d{1,3}\])*+)(\s*+)")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
_OPENERS = "\"'“‘«([{「『-–— \t\n"
_LONGEST_ABBREVIATION = 24
_WORD = re.compile(r"[^\W\d_]+")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Never the last word of a sentence: something always follows.
_TITLES = _set(
    """dr mr mrs ms mx messrs mme mlle prof st mt ft gen col maj capt cpt lt sgt cpl pvt adm cmdr rev fr hon
    sen rep gov pres vs v cf viz e.g i.e approx ca al resp"""
)
# Part of a number where a digit follows ("No. 5", "Jan. 3"); else an ordinary last word ("No. He left.").
_BEFORE_NUMBER = _set(
    """no nos nr p pp vol vols fig figs sec sect ch chap art eq tab ex op par para pt pts b c d r fl jan feb
    mar apr jun jul aug sep sept oct nov dec"""
)
# May close a sentence or stand inside it: the next word decides.
_EITHER = _set(
    """etc inc ltd co corp bros llc plc jr sr esq ave blvd rd dept univ assn est a.m p.m am pm ph.d m.d b.a
    m.a b.sc m.sc d.c b.c a.d b.c.e c.e jan feb mar apr jun jul aug sep sept oct nov dec"""
)
# Words that open sentences and hardly ever follow a name's abbreviation inside one.
_STARTERS = _set(
    """a an the this that these those it its he she they we i you his her their our my there here in on at by
    for from with without after before during since until while when where what who why how if although
    though because as but and or so yet however therefore thus moreover furthermore meanwhile later then now
    today both each many most some several such one two three according"""
)


def split(document: Document, *, config: Candidates) -> list[Candidate]:
    """The document's units as candidates, each with the document's BM25 score and rank.

    Texts are cleaned (`rerank_core.text.clean`), so that what is tagged, scored and stored is one form.

    Args:
        document: as BM25 found it. Its own `sentences`, where given, are taken before the splitter's.
        config: `unit`, `window_words` and `window_stride`.

    Returns:
        At least one candidate, in the text's order; none for a document with neither text nor title, which
        the caller puts into the dead letters. `passage_id` is doc_id for a whole passage, else "doc_id#n". A
        blank sentence gives no unit but keeps its number, so that n is the place in the index's own list. A
        document with a title alone is scored by it: the title becomes its text too, and `passage_text` does
        not say it twice.
    """
    title = clean(document.title)
    pieces = _pieces(document, config)
    numbered = [(n, text) for n, piece in enumerate(pieces) if (text := clean(piece))]
    if not numbered and title:
        numbered = [(0, title)]
    whole = config.unit == "passage"
    return [
        Candidate(
            doc_id=document.doc_id,
            passage_id=document.doc_id if whole else f"{document.doc_id}#{n}",
            title=title,
            text=text,
            bm25_score=document.bm25_score,
            bm25_rank=document.bm25_rank,
        )
        for n, text in numbered
    ]


def unit_index(doc_id: str, passage_id: str) -> int:
    """Place of a unit in its document, from 0; -1 for a whole passage or an id that `split` did not make."""
    if passage_id == doc_id:  # usual
        return -1
    number = passage_id.removeprefix(f"{doc_id}#")
    return int(number) if number != passage_id and number.isascii() and number.isdigit() else -1


def sentences(text: str) -> list[str]:
    """`text` cut into sentences by rules; together they hold every character of it but white space.

    Not cut after titles ("Dr."), initials ("J. R. R. Tolkien"), "e.g.", "No. 5", decimals, list numbers
    ("1. ") and spaced ellipses; after "U.S.", "Inc." or "etc." only if the next word is one that opens
    sentences. Quotes and brackets that close after the full stop stay with it. A blank line always cuts.
    Takes linear time.
    """
    return [piece for paragraph in _PARAGRAPH.split(text) for piece in _sentences(paragraph) if piece]


def windows(text: str, *, words: int, stride: int) -> list[str]:
    """Overlapping windows of `words` words, each `stride` after the one before; words joined by one space.

    The last one ends with the text and is as long as the others: it overlaps more, so no tail is tiny.
    A text of at most `words` words is one window, an empty one none.
    """
    every = text.split()
    if not every:
        return []
    last = max(0, len(every) - words)
    return [" ".join(every[start : start + words]) for start in (*range(0, last, stride), last)]


def _pieces(document: Document, config: Candidates) -> list[str]:
    if config.unit == "passage":
        return [document.text]
    if config.unit == "sentence":
        return list(document.sentences) or sentences(document.text)
    return windows(clean(document.text), words=config.window_words, stride=config.window_stride)


def _sentences(text: str) -> list[str]:
    pieces, start = [], 0
    for match in _END.finditer(text):
        if _ends_sentence(text, match, start):
            pieces.append(text[start : match.end()].strip())
            start = match.end()
    pieces.append(text[start:].strip())
    return pieces


def _ends_sentence(text: str, match: re.Match[str], start: int) -> bool:
    mark, _, space = match.groups()
    if mark[0] in "。！？":
        return True
    after = text[match.end() : match.end() + 40].lstrip(_OPENERS)
    if not space or not after or after[0].islower() or not (after[0].isalnum() or after[0] in "$€£¥"):
        return False  # "3.14", "example.com", "Yahoo! is", "'Why?' he asked"
    spaced = match.start() > start and text[match.start() - 1].isspace()
    if mark != ".":
        return not (spaced and mark[0] in ".…")  # "one ... Two" omits; "one... Two" trails off
    before = text[max(start, match.start() - _LONGEST_ABBREVIATION) : match.start()].split()
    listed = len(before) == 1 and match.start() - start <= 5 and before[0].isdigit()  # "1. First item"
    elided = spaced and before and before[-1].endswith(".")  # the last dot of ". . ."
    return bool(before) and not elided and not listed and _full_stop(before[-1], after)


def _full_stop(word: str, after: str) -> bool:
    """Whether the full stop after `word` ends a sentence, where the text goes on with `after`."""
    word = word.lstrip(_OPENERS)
    low = word.casefold()
    if low in _TITLES or (low in _BEFORE_NUMBER and after[0].isdigit()):
        return False
    initials = (len(word) == 1 and word.isupper()) or re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word)
    if initials or low in _EITHER:
        following = _WORD.match(after)
        # "U.S. A. Smith" goes on: a lone letter is another initial, whatever word it spells.
        return following is not None and following[0].casefold() in _STARTERS and after[1:2] != "."
    return True
