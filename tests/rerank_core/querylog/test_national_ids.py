"""Each id is found in the forms that stdnum's own documentation writes it in."""

from __future__ import annotations

import importlib
import re

import pytest

from rerank_core.querylog.masks import mask
from rerank_core.querylog.national_ids import IDS


@pytest.mark.parametrize("name", [name for name, *_ in IDS])
def test_ids_are_masked_as_they_are_written(name: str) -> None:
    module = importlib.import_module(f"stdnum.{name}")
    quoted = re.findall(r"(?:validate|format|compact)\('([^']+)'", module.__doc__)
    examples = [example for example in quoted if module.is_valid(example)]
    assert examples, "stdnum's own documentation has an example"
    for example in examples:
        # A country's letters before the number may stay.
        assert re.fullmatch(r"my (?:[A-Z]{2} )?\((id|number|phone)\) lost", mask(f"my {example} lost"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("aadhaar 2341 2341 2346", "aadhaar (id)"),
        ("aadhaar 2341 2341 2348", "aadhaar 2341 2341 2348"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),  # of which twelve digits would be an id
        ("1984 1985 1986", "1984 1985 1986"),
        ("dni 12345678Z", "dni (id)"),
        ("dni 12345678A", "dni 12345678A"),
        ("AB 12 34 56 C", "(id)"),
        ("١٢٣٤٥٦٧٨Z", "(id)"),
    ],
)
def test_the_check_digit_and_the_form_decide(text: str, masked: str) -> None:
    assert mask(text) == masked
