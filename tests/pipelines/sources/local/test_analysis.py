"""Terms of texts, the same for all spellings, and the language of a corpus."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.local.analysis import LANGUAGES, Analyzer, detect

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: list[Form] = ["NFC", "NFD", "NFKC", "NFKD"]
UNSEEN = ["", "\u00ad", "\u200b", "\u200c", "\u200d", "\ufeff", "\ufe0f", "\U000e0101"]
LETTERS = "aé ßO'ﬁ９-のカｶﾞ東京葛서울한กีาلآमिת٣"
TEXTS = st.one_of(st.text(), st.text(alphabet=LETTERS, max_size=30))
ANALYZERS = {language: Analyzer(language) for language in LANGUAGES if language != "auto"}


@given(
    TEXTS, st.sampled_from(sorted(ANALYZERS)), st.sampled_from(FORMS), st.sampled_from(UNSEEN), st.booleans()
)
def test_any_spelling_of_a_documents_words_finds_it(
    text: str, language: str, form: Form, unseen: str, upper: bool
) -> None:
    analyzer = ANALYZERS[language]
    terms = set(analyzer.of_document(text))
    for word in [text, *text.split()]:
        typed = unseen.join(unicodedata.normalize(form, word.upper() if upper and "ı" not in word else word))
        query = analyzer.of_query(typed)
        assert set(query) <= terms
        assert bool(query) == bool(analyzer.of_document(word))


@given(st.text(alphabet="東京都葛城のカー서울역近", min_size=1), st.data())
def test_any_part_of_a_run_without_spaces_finds_it(run: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(run) - 1))
    part = run[start : data.draw(st.integers(start + 1, len(run)))]
    query = Analyzer("none").of_query(part)
    assert query
    assert set(query) <= set(Analyzer("none").of_document(run))


@given(st.text(alphabet="กขคงจาเี", min_size=2), st.data())
def test_any_two_letters_of_a_thai_run_find_it(run: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(run) - 2))
    query = Analyzer("th").of_query(run[start : data.draw(st.integers(start + 2, len(run)))])
    assert query
    assert set(query) <= set(Analyzer("th").of_document(run))


def test_words_are_stemmed_and_stop_words_left_out_of_queries_that_have_others() -> None:
    english = Analyzer("en")
    assert english.of_document("The cat's running") == ["the", "cat", "s", "run"]
    assert english.of_query("the CATS of the cat") == ["cat"]
    assert english.of_query("to be or not to be") == ["to", "be", "or", "not"]
    assert english.of_query("the cats", ignore_stop_words=False) == ["the", "cat"]
    assert english.of_query("the 猫") == ["猫"]
    assert Analyzer("none").of_query("the cats") == ["the", "cats"]
    assert Analyzer("none").of_document("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_a_long_word_is_cut_and_found() -> None:
    analyzer = Analyzer("none")
    assert [len(term) for term in analyzer.of_document("x" * 600)] == [255, 255, 90]
    assert analyzer.of_query("x" * 600) == ["x" * 255, "x" * 90]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The fox jumps over the lazy dog while it is raining, and they are all in the house."),
        ("de", "Der Fuchs springt über den faulen Hund, während es regnet und alle im Haus sind."),
        ("fr", "Le renard saute par-dessus le chien pendant qu'il pleut et que nous sommes dans la maison."),
        ("es", "El zorro salta sobre el perro mientras llueve y todos están en la casa, pero no los demás."),
        (
            "pt",
            "A raposa salta sobre o cão enquanto chove e todos estão em casa. Não é uma coisa que os demais têm.",
        ),
        ("it", "La volpe salta sopra il cane mentre piove e tutti sono nella casa, ma non gli altri."),
        ("nl", "De vos springt over de luie hond terwijl het regent en iedereen in het huis is."),
        ("da", "Ræven springer over den dovne hund, mens det regner, og alle er i huset, men ikke de andre."),
        (
            "no",
            "Reven hopper over den late hunden mens det regner, og alle er i huset, men ikke hva de etter.",
        ),
        ("sv", "Räven hoppar över den lata hunden medan det regnar och alla är i huset, men inte de andra."),
        (
            "fi",
            "Kettu hyppää laiskan koiran yli, kun sataa ja kaikki ovat talossa. Se on hyvä, mutta he olivat.",
        ),
        ("hu", "A róka átugrik a lusta kutya felett, amíg esik az eső és mindenki a házban van, de nem mi."),
        ("ru", "Лиса прыгает через ленивую собаку, пока идёт дождь, и все в доме, но не мы."),
        ("el", "Η αλεπού πηδά πάνω από το τεμπέλικο σκυλί."),
        ("ta", "விரைவான பழுப்பு நரி"),
        ("ar", "الثعلب البني السريع يقفز فوق الكلب الكسول"),
        ("zh", "敏捷的狐狸跳过了懒狗，外面正在下雨。 iPhone 15"),
        ("ja", "素早い狐は怠け者の犬を飛び越える。"),
        ("ko", "빠른 여우가 게으른 개를 뛰어넘는다."),
        ("th", "สุนัขจิ้งจอกกระโดดข้ามสุนัขขี้เกียจ"),
        ("en", "Stainless steel water bottle 750ml\nUSB-C cable 2m"),
        ("none", "روباه سریع از روی سگ تنبل می‌پرد و باران می‌بارد"),  # Persian
        ("none", "Szybki lis przeskakuje nad leniwym psem, gdy pada deszcz i wszyscy są w domu."),
        ("none", "Hızlı tilki tembel köpeğin üzerinden atlar, yağmur yağarken ve herkes evde."),
        ("none", "Швидка лисиця стрибає через ледачого пса, поки йде дощ і всі вдома."),
        ("none", "तेज भूरी लोमड़ी आलसी कुत्ते पर कूदती है"),
        ("en", "Obama's visit: what's next? Ann's cat doesn't care; it's Bob's turn to feed the beast"),
        ("en", "www.nytimes.com\namazon.com\nwww.bbc.com"),
        ("none", "1 2 3"),
    ],
)
def test_languages_are_recognised(language: str, text: str) -> None:
    assert detect([text]) == language


@given(st.lists(TEXTS, max_size=3))
def test_any_text_has_a_language(texts: list[str]) -> None:
    assert detect(texts) in ANALYZERS
