"""From a text to the terms that the embedded index holds and searches, and the language of a corpus.

A change of the terms is a change of the index's format (`bm25_index.INDEX_FORMAT`): terms of two versions do not meet.

Every text is taken through `rerank_core.text.fold`. Scripts that write no spaces between words, and Hangul, whose words
carry their particles, are cut into n-grams whatever the language, so a corpus may mix languages and queries may be in
another one. All other words lose their endings by the stemmer of the corpus's language.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import tantivy

from rerank_core.errors import SourceError
from rerank_core.text import fold

STEMMERS = {  # languages for which tantivy has a stemmer
    "ar": "Arabic",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "ta": "Tamil",
    "tr": "Turkish",
}
WITHOUT_STOP_WORDS = frozenset({"ar", "el", "ro", "ta", "tr"})  # tantivy has no list for these
# Written without spaces. The foreign words in such texts are mostly English.
NGRAMS = ("cjk", "ja", "ko", "th", "zh")
LANGUAGES = ("auto", "none", *sorted([*STEMMERS, *NGRAMS]))

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f"
_HANGUL = "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"
_THAI = "\u0e01-\u0e3a\u0e40-\u0e4e"
# A character is a syllable or a word: pairs of them, and each alone, since many words have one.
_SYLLABIC = f"{_HAN}{_KANA}{_HANGUL}\u3105-\u312f\u31a0-\u31bf"
# Alphabets without spaces: Thai, Lao, Myanmar, Khmer.
_UNSPACED = f"{_THAI}\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
_RUNS = re.compile(f"([{_SYLLABIC}]+)|([{_UNSPACED}]+)")
_LONGEST_WORD = 255  # characters, as in Lucene; the rest of a longer word is another one

_SAMPLE_CHARS = 2_000  # of each passage that the language is guessed from
_LETTERS = re.compile(r"[^\W\d_]")
# Of "it's" and "don't", whose letters French lists, and of "example.com": Portuguese lists "com".
_NO_WORDS = re.compile(r"['’.]\w{1,3}\b")
# Script, the language that it means, and the share of letters from which on it does. The first that applies counts.
_SCRIPTS = [
    (re.compile(f"[{_KANA}]"), "ja", 0.1),
    (re.compile(f"[{_HANGUL}]"), "ko", 0.3),
    (re.compile(f"[{_HAN}]"), "zh", 0.3),
    (re.compile(f"[{_THAI}]"), "th", 0.3),
    (re.compile("[\u0370-\u03ff\u1f00-\u1fff]"), "el", 0.5),
    (re.compile("[\u0b80-\u0bff]"), "ta", 0.5),
    (re.compile("[پچژگکیے]"), "none", 0.02),  # Persian and Urdu, which Arabic's stemmer would harm
    (re.compile("[\u0620-\u064a]"), "ar", 0.5),
]
_FEWEST_STOP_WORDS = 0.12  # share of a text's words; prose of the right language has 0.25 to 0.5
_ENGLISH_ASCII = 0.99  # share of ASCII letters in lists of English names, which have no stop words


class Analyzer:
    """Turns texts into terms.

    Args:
        language: one of LANGUAGES except "auto". It decides the stemmer and the stop words alone.
    """

    def __init__(self, language: str) -> None:
        stemmed = "en" if language in NGRAMS else language
        self._words = _words_of(stemmed)
        self._content_words = _words_of(stemmed, ignore_stop_words=True)

    def of_document(self, text: str) -> list[str]:
        """All terms of a title or text, in no certain order."""
        rest, syllabic, unspaced = _split(fold(text))
        return [
            *_cut(self._words.analyze(rest)),
            *_ngrams(syllabic, (1, 2)),
            *_ngrams(unspaced, (2, 3, 4)),
            *(run for run in unspaced if len(run) == 1),
        ]

    def of_query(self, text: str, *, ignore_stop_words: bool = True) -> list[str]:
        """The distinct terms to search for.

        Args:
            text: the query.
            ignore_stop_words: whether the language's stop words are left out of a text that has other words.
        """
        rest, syllabic, unspaced = _split(fold(text))
        ngrams = [
            *_ngrams(syllabic, (1, 2)),
            # Shorter n-grams are in nearly every text, and blur the order.
            *_ngrams([run for run in unspaced if len(run) > 2], (3, 4)),
            *(run for run in unspaced if len(run) <= 2),
        ]
        content = self._content_words.analyze(rest) if ignore_stop_words else []
        words = content or ([] if ignore_stop_words and ngrams else self._words.analyze(rest))
        return list(dict.fromkeys([*_cut(words), *ngrams]))


def detect(texts: Sequence[str]) -> str:
    """The language of LANGUAGES that most of the texts seem to be in; "none" if it is none that has a stemmer.

    Scripts decide first, then the share of stop words. Languages without a list of them (see WITHOUT_STOP_WORDS) are
    recognised only by a script of their own. Texts in ASCII without stop words, such as names of products, are taken
    for English.
    """
    sample = fold("\n".join(text[:_SAMPLE_CHARS] for text in texts))
    letters = len(_LETTERS.findall(sample)) or 1
    for script, language, share in _SCRIPTS:
        if len(script.findall(sample)) >= share * letters:
            return language
    words = Counter(_words_of("none").analyze(_NO_WORDS.sub("", sample)))
    listed = {
        language: words.keys() - set(_stop_filter(name).analyze(" ".join(words)))
        for language, name in STEMMERS.items()
        if language not in WITHOUT_STOP_WORDS
    }
    # A word that several languages list says little about which it is.
    languages = Counter(itertools.chain.from_iterable(listed.values()))
    evidence = {one: sum(words[w] / languages[w] for w in listed[one]) for one in sorted(listed)}
    best = max(evidence, key=evidence.__getitem__)
    if sum(words[word] for word in listed[best]) >= _FEWEST_STOP_WORDS * words.total() > 0:
        return best
    ascii_letters = len(re.findall("[a-z]", sample))
    return "en" if ascii_letters >= _ENGLISH_ASCII * letters else "none"


def check_language(language: str) -> None:
    """Refuse a language that is none of LANGUAGES.

    Raises:
        SourceError: the message lists them.
    """
    if language not in LANGUAGES:
        raise SourceError(f"no language {language!r}; choose one of {', '.join(LANGUAGES)}")


class _Split(NamedTuple):
    rest: str  # what is written with spaces
    syllabic: list[str]
    unspaced: list[str]


def _split(folded: str) -> _Split:
    if folded.isascii():
        return _Split(folded, [], [])
    runs = _RUNS.findall(folded)
    rest = _RUNS.sub(" ", folded) if runs else folded
    return _Split(rest, [one for one, _ in runs if one], [other for _, other in runs if other])


def _ngrams(runs: Iterable[str], sizes: Sequence[int]) -> Iterator[str]:
    for run, size in itertools.product(runs, sizes):
        for start in range(len(run) - size + 1):
            yield run[start : start + size]


def _cut(words: list[str]) -> list[str]:
    if max(map(len, words), default=0) <= _LONGEST_WORD:
        return words
    return [word[at : at + _LONGEST_WORD] for word in words for at in range(0, len(word), _LONGEST_WORD)]


def _builder() -> tantivy.TextAnalyzerBuilder:
    # With marks: tantivy's own tokenizer cuts words at the vowel signs of Indian scripts.
    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(r"[\p{Alphabetic}\p{M}\p{N}]+"))


def _stop_filter(name: str) -> tantivy.TextAnalyzer:
    return _builder().filter(tantivy.Filter.stopword(name)).build()


def _words_of(language: str, *, ignore_stop_words: bool = False) -> tantivy.TextAnalyzer:
    """Words without their endings; without the language's stop words if `ignore_stop_words`."""
    builder, name = _builder(), STEMMERS.get(language)
    if name and ignore_stop_words and language not in WITHOUT_STOP_WORDS:
        builder = builder.filter(tantivy.Filter.stopword(name))
    if name:
        builder = builder.filter(tantivy.Filter.stemmer(name))
    return builder.build()
