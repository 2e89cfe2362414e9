"""What a tag is: how it is computed, how the model's input shows it, and which values it can have.

schemas/tags.py lists the tags; each has its file here.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from rerank_core.config.night import Tagging
from rerank_core.text import clean
from schemas.records import PassageFacts
from schemas.tags import FIELDS

T = TypeVar("T")

_UNSAFE = re.compile("[\\[\\],\uff3b\uff3d\ufe47\ufe48\u27e6\u301a\u27e7\u301b\uff0c\ufe10\ufe50]+")
"""Brackets and commas, in all their forms: a name cannot close its tag."""


@dataclasses.dataclass(frozen=True)
class TagInput:
    """All that tags are computed from: a query and its candidates. No label, click or score is among it."""

    query: str
    query_facts: PassageFacts
    passages: Sequence[tuple[str, str]]  # (title, text) of each candidate
    facts: Sequence[PassageFacts]  # of each candidate
    names: Sequence[str]  # an id of each candidate
    config: Tagging
    _results: dict[Callable[..., Any], Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def once(self, function: Callable[[TagInput], T]) -> T:
        """`function` of this input, computed once however many tags need it."""
        if function not in self._results:
            self._results[function] = function(self)
        result: T = self._results[function]
        return result


class Tag(NamedTuple):
    """One tag.

    A bool is shown as [LABEL] or not at all, names as [LABEL:a,b], anything else as [LABEL:value].
    """

    compute: Callable[[TagInput], Sequence[Any]]  # its value for each candidate, in their order
    label: str = ""  # "": published, and not shown to the model
    # Each has a token, and a training forges one of them at random; (): names, which are never forged.
    values: tuple[Any, ...] = ()
    ideal: Any = None  # its value in the tags of a perfect answer; None: any

    def render(self, value: Any) -> str:
        """The value as text; "" for a tag that does not apply."""
        if isinstance(value, bool):
            return f"[{self.label}]" if value else ""
        if isinstance(value, tuple):
            value = ",".join(name for entity in value if (name := clean(_UNSAFE.sub(" ", entity))))
            return f"[{self.label}:{value}]" if value else ""
        return f"[{self.label}:{value}]"

    @property
    def forms(self) -> tuple[str, ...]:
        """The text of each of `values`."""
        return tuple(map(self.render, self.values))

    @property
    def has_value(self) -> bool:
        """Whether a value stands after the label."""
        return bool not in map(type, self.values)


@lru_cache(maxsize=1)
def all_tags() -> dict[str, Tag]:
    """The `Tag` of each field of `schemas.tags.Tags`."""

    def find(reference: str) -> Tag:
        file, _, name = reference.partition(".")
        tag: Tag = getattr(importlib.import_module(f"{__package__}.{file}"), name)
        return tag

    return {name: find(field.tag) for name, (_, field) in FIELDS.items()}


@lru_cache(maxsize=1)
def input_tags() -> dict[str, Tag]:
    """Those that the model's input shows, in the order in which it shows them."""
    return {name: tag for name, tag in all_tags().items() if tag.label}
