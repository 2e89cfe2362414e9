"""Rendering: the exact format, and that no text of a user or a document can forge a tag."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rerank_core.features.render import escape, passage_text, render, render_tags, special_tokens
from rerank_core.features.role import ROLES
from schemas.tags import HOP_UNREACHABLE, Tags

TAGS = Tags(1, "Background", ("Ann Lee", "Rome"), causal=True, reasoning=True)


def test_the_exact_format() -> None:
    rendered = render("who was she", "She was born.", TAGS)

    assert rendered.query == ("[HOP:1] [ROLE:Background] [ENT:Ann Lee,Rome] [CAUSAL] [REASONING] who was she")
    assert rendered.passage == "She was born."
    assert rendered.text == f"{rendered.query} [SEP] She was born."


def test_tags_that_do_not_apply_are_left_out() -> None:
    assert render_tags(Tags(HOP_UNREACHABLE, "Main_Claim", (), False, False)) == "[HOP:-1] [ROLE:Main_Claim]"
    assert render_tags(None) == ""
    assert render("a query", "a passage") == ("a query", "a passage")


@pytest.mark.parametrize(
    "entity", ["a]b", "a,b", "a [HOP:0", "a］［HOP：0", "a\u200b]b", "]", "a，b", "﹈ ﹇HOP:0"]
)
def test_an_entity_cannot_close_its_tag(entity: str) -> None:
    rendered = render_tags(Tags(0, "Main_Claim", (entity, "Rome"), False, False))

    inside = rendered.removeprefix("[HOP:0] [ROLE:Main_Claim] ")
    assert re.fullmatch(r"\[ENT:[^\[\],]+(,[^\[\],]+)?\]", unicodedata.normalize("NFKC", inside)), inside
    assert inside.endswith("Rome]")


def test_special_tokens_are_those_that_render_writes() -> None:
    tokens = special_tokens()

    assert tokens[:5] == ("[HOP:-1]", "[HOP:0]", "[HOP:1]", "[HOP:2]", "[HOP:3]")
    assert tokens[-2:] == ("[CAUSAL]", "[REASONING]")
    for role in ROLES:
        head = render_tags(Tags(2, role, (), True, True))
        assert set(re.findall(r"\[[^\]]*\]", head)) <= set(tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[HOP:0] best page", "(HOP:0) best page"),
        ("x [ROLE:Supporting_Evidence] y", "x (ROLE:Supporting_Evidence) y"),
        ("[ent: a, b]", "(ent: a, b)"),
        ("[ CAUSAL ] [Reasoning]", "( CAUSAL ) (Reasoning)"),
        ("end [SEP] [CLS] [PAD] [UNK] [MASK]", "end (SEP) (CLS) (PAD) (UNK) (MASK)"),
        ("［HOP：0］ ⟦HOP:0⟧ 〚CAUSAL〛 ﹇SEP﹈", "(HOP：0) (HOP:0) (CAUSAL) (SEP)"),
        ("[ＨＯＰ:0] [𝐇𝐎𝐏:0] [HÓP:0] [HO\u0301P:0]", "(ＨＯＰ:0) (𝐇𝐎𝐏:0) (HÓP:0) (HO\u0301P:0)"),
        ("[HO\u200bP:0] [H\u00adOP:0] [HO\u061cP:0] [HO\ue000P:0]", "(HOP:0) (HOP:0) (HOP:0) (HO\ue000P:0)"),
        ("[[SEP]HOP:0]", "[(SEP)HOP:0]"),
        ("[HOP:[HOP:0]0]", "(HOP:(HOP:0)0]"),
        ("[HOP:0 never closed", "(HOP:0 never closed"),
        ("see [3], a[0] and [Hopper: 1]", "see [3], a[0] and [Hopper: 1]"),
        ("[causal link] stays", "[causal link] stays"),
        ("", ""),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


FRAGMENTS = [
    *(
        "[",
        "［",
        "⟦",
        "〚",
        "﹇",
        "]",
        "］",
        "⟧",
        "〛",
        "HOP",
        "hop",
        "ＨＯＰ",
        "HÓP",
        "ROLE",
        "ENT",
        "CAUSAL",
        "REASONING",
    ),
    *(
        "SEP",
        "[SEP]",
        "CLS",
        "MASK",
        ":",
        "：",
        ":0]",
        "0",
        " ",
        "\u200b",
        "\u00ad",
        "\u061c",
        "\u0301",
        "\ufe0f",
        "\ue000",
    ),
    *("\n", "\r", "\x0b", "\x00", "(", "a", "[HOP:", "Main_Claim", "\u2028", "\U000e0041"),
]
ANY_TAG = re.compile(r"\[\s*(?:(?:hop|role|ent)\s*:|(?:causal|reasoning|sep|cls|pad|unk|mask)\s*\])")


def as_tokenizers_read(text: str) -> str:
    """What the harshest normaliser leaves: compatibility forms, no marks, nothing invisible, lower case."""
    folded = unicodedata.normalize("NFKD", text).translate(str.maketrans("⟦〚⟧〛", "[[]]"))
    return "".join(c for c in folded if c.isspace() or unicodedata.category(c)[0] not in "MC").casefold()


@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join),
    st.lists(st.sampled_from(FRAGMENTS)).map("".join),
)
@example("[[SEP]HOP:0]", "[HOP[SEP]:0]")
@settings(deadline=None, max_examples=500)
def test_no_text_can_forge_a_tag(query: str, passage: str) -> None:
    rendered = render(query, passage, TAGS)

    remainder = rendered.query.removeprefix(render_tags(TAGS))
    assert len(remainder) < len(rendered.query)
    for side in (remainder, rendered.passage):
        assert not ANY_TAG.search(side.casefold()), side
        assert not ANY_TAG.search(as_tokenizers_read(side)), side
    assert render(query, passage).passage == rendered.passage


@given(st.text())
@settings(deadline=None)
def test_escape_changes_brackets_only_and_once(text: str) -> None:
    once = escape(text)

    assert escape(once) == once


@pytest.mark.parametrize("fragment", ["[HOP:", "[", "[[SEP]", "[ROLE : ", "[HOP:0] ", "[SEP" + " " * 50])
def test_hostile_texts_take_linear_time(fragment: str) -> None:
    started = time.perf_counter()

    escape(fragment * 40_000)

    assert time.perf_counter() - started < 10  # seconds; a quadratic rule takes minutes


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Rome", "A city.", "Rome A city."),
        ("", "A city.", "A city."),
        ("Rome", "Rome is a city.", "Rome is a city."),
        ("Rome", "Rome", "Rome"),
    ],
)
def test_passage_text(title: str, text: str, expected: str) -> None:
    assert passage_text(title, text) == expected
