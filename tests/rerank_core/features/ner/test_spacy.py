"""spaCy as recogniser: labels, places, long texts, and the same answer alone as in a batch."""

from __future__ import annotations

import pickle
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

spacy = pytest.importorskip("spacy")

from spacy.training import Example

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.features.ner import LABELS
from rerank_core.features.ner import spacy as module
from rerank_core.features.ner.spacy import SHIPPED, SpacyRecogniser
from schemas.records import Mention

PASSAGES = [
    ("", "Angela Merkel was born in Hamburg. She studied physics at Leipzig University, in East Germany."),
    ("Kuno", "The Kuno rises in Uttar Pradesh and joins the Chambal near Morena, India."),
    ("", ""),
    ("", "no names here"),
    (
        "",
        "Steve Jobs, Steve Wozniak and Ronald Wayne founded Apple Computer in Los Altos, California,\nin 1976.",
    ),
    ("", "Naïve café ’s Zürich — Gödel 🙂 met Albert Einstein in Princeton."),
    ("", "   \n "),
]

VISIT = "Ann saw the Louvre in Paris with French friends of IBM on Monday."


@pytest.fixture(scope="module")
def shipped() -> SpacyRecogniser:
    return SpacyRecogniser()


@pytest.fixture
def ruled(tmp_path: Path) -> Path:
    """A pipeline with spaCy's own labels, and a component in it that entities do not need."""
    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("PERSON")
    nlp.add_pipe("sentencizer")
    nothing = Example.from_dict(nlp.make_doc(VISIT), {"entities": ["O"] * len(nlp.make_doc(VISIT))})
    optimizer = nlp.initialize(lambda: [nothing])
    for _ in range(20):
        nlp.update([nothing], sgd=optimizer)  # an untrained `ner` finds anything anywhere
    ruler = nlp.add_pipe("entity_ruler", config={"overwrite_ents": True})
    labels = {
        "Ann": "PERSON",
        "Paris": "GPE",
        "French": "NORP",
        "Monday": "DATE",
        "IBM": "ORG",
        "Louvre": "FAC",
    }
    ruler.add_patterns([{"label": label, "pattern": [{"TEXT": word}]} for word, label in labels.items()])
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_the_shipped_pipeline_finds_names_of_people_and_places(shipped: SpacyRecogniser) -> None:
    (mentions,) = shipped.recognise(PASSAGES[:1])
    found = {(mention.text, mention.label) for mention in mentions}
    assert {("Angela Merkel", "PER"), ("Hamburg", "LOC")} <= found


def test_mentions_stand_in_the_text_in_order_and_apart(shipped: SpacyRecogniser) -> None:
    for (_, text), mentions in zip(PASSAGES, shipped.recognise(PASSAGES), strict=True):
        last = 0
        for mention in mentions:
            assert isinstance(mention, Mention)
            assert text[mention.start : mention.end] == mention.text
            assert mention.text == mention.text.strip() != ""
            assert mention.label in LABELS
            assert mention.start >= last
            last = mention.end


def test_nothing_is_found_where_nothing_is_written(shipped: SpacyRecogniser) -> None:
    assert shipped.recognise([]) == []
    assert shipped.recognise([("Title", ""), ("", "   \n ")]) == [(), ()]


def test_a_passage_has_the_same_mentions_alone_and_in_any_batch(shipped: SpacyRecogniser) -> None:
    passages = [(title, f"{text} {more}") for title, text in PASSAGES for _, more in PASSAGES]
    alone = [shipped.recognise([passage])[0] for passage in passages]
    assert shipped.recognise(passages) == alone
    assert shipped.recognise(passages[::-1]) == alone[::-1]
    assert SpacyRecogniser(batch_size=3).recognise(passages) == alone


def test_the_title_is_not_read(shipped: SpacyRecogniser) -> None:
    text = PASSAGES[0][1]
    assert shipped.recognise([("", text)]) == shipped.recognise([("Angela Merkel", text)])


def test_looking_spellings_up_once_changes_no_answer() -> None:
    texts = [text for _, text in PASSAGES] * 3
    quick, plain = module._load(SHIPPED), spacy.load(SHIPPED)
    answers = [
        nlp.get_pipe("tagger").model.predict([nlp.make_doc(t) for t in texts]) for nlp in (quick, plain)
    ]
    for ours, theirs in zip(*answers, strict=True):
        assert np.array_equal(ours, theirs)


def test_the_pipeline_opened_by_spacy_alone_gives_entities() -> None:
    doc = spacy.load(SHIPPED)(PASSAGES[0][1])
    assert ("Hamburg", "LOC") in {(e.text, e.label_) for e in doc.ents}


def test_labels_are_mapped_and_dates_dropped(ruled: Path) -> None:
    (mentions,) = SpacyRecogniser(str(ruled)).recognise([("", VISIT)])
    assert [(m.text, m.label) for m in mentions] == [
        ("Ann", "PER"),
        ("Louvre", "LOC"),
        ("Paris", "LOC"),
        ("French", "MISC"),
        ("IBM", "ORG"),
    ]


def test_components_that_entities_do_not_need_stay_out(ruled: Path) -> None:
    assert module._load(ruled).pipe_names == ["ner", "entity_ruler"]


def test_a_text_longer_than_spacy_takes_is_read_to_its_end(shipped: SpacyRecogniser) -> None:
    text = "It rained all day and all night in the hills. " * 24_000 + "Angela Merkel was born in Hamburg."
    assert len(text) > 1_000_000
    (mentions,) = shipped.recognise([("", text)])
    assert mentions[-1].text == "Hamburg"
    assert mentions[-1].end == len(text) - 1


def test_a_row_of_marks_is_read_and_costs_its_neighbours_nothing(shipped: SpacyRecogniser) -> None:
    """spaCy alone takes a quadratic time: half a minute for this row."""
    (mentions,) = shipped.recognise([("", "Angela Merkel was born in Hamburg. " + "," * 25_000)])
    assert [mention.text for mention in mentions] == ["Angela Merkel", "Hamburg"]


def test_a_pickled_recogniser_is_small_and_finds_the_same(shipped: SpacyRecogniser) -> None:
    expected = shipped.recognise(PASSAGES)
    raw = pickle.dumps(shipped)
    assert len(raw) < 1000
    copy = pickle.loads(raw)  # noqa: S301
    assert copy.recognise(PASSAGES) == expected
    assert copy.fingerprint == shipped.fingerprint


def test_the_fingerprint_follows_the_files_and_not_their_place(
    tmp_path: Path, shipped: SpacyRecogniser
) -> None:
    started = time.perf_counter()
    copy = shutil.copytree(SHIPPED, tmp_path / "elsewhere")
    (copy / "README.md").write_text("another card", encoding="utf-8")
    assert SpacyRecogniser(str(copy)).fingerprint == shipped.fingerprint
    assert time.perf_counter() - started < 5
    patterns = copy / "entity_ruler" / "patterns.jsonl"
    patterns.write_text(patterns.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert SpacyRecogniser(str(copy)).fingerprint != shipped.fingerprint


def test_an_opened_pipeline_is_renewed_before_its_vocabulary_fills_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = module._Opened(SHIPPED)
    loads = []
    load = module._load
    monkeypatch.setattr(module, "_load", lambda folder: loads.append(folder) or load(folder))
    monkeypatch.setattr(module, "MOST_STRINGS", 50)
    first = opened.spans(["Angela Merkel"], 8)
    opened.spans([" ".join(f"word{i}" for i in range(100))], 8)
    assert opened.spans(["Angela Merkel"], 8) == first
    assert len(loads) == 2


def test_an_unknown_name_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match="spacy download xx_no_such_pipeline"):
        SpacyRecogniser("xx_no_such_pipeline")


def test_a_folder_that_holds_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.cfg or meta\.json is missing"):
        SpacyRecogniser(str(tmp_path))


def test_a_broken_pipeline_is_named_when_it_is_opened(tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED, tmp_path / "broken")
    (copy / "tagger" / "model").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="spaCy cannot load"):
        SpacyRecogniser(str(copy)).recognise(PASSAGES)


def test_an_installed_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "en_of_a_test"
    shutil.copytree(SHIPPED, package / "en_of_a_test-1.0.0")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    named = SpacyRecogniser("en_of_a_test")
    assert named.recognise(PASSAGES) == SpacyRecogniser().recognise(PASSAGES)


def test_without_spacy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingEngine, match="pip install spacy"):
        SpacyRecogniser()


def test_batches_have_a_size() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        SpacyRecogniser(batch_size=0)


def test_no_pickle_ships() -> None:
    names = {path.name for path in SHIPPED.rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".bin"))} - {"lookups.bin"}
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 10_000_000
