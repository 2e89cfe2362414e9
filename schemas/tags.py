"""The tags of a candidate: one table, from which the record, the columns, the input and the training are derived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_type_hints

HOP_UNREACHABLE = -1
"""`Tags.hop` of a candidate that no chain of shared entities joins to the query."""


class Field(NamedTuple):
    """What a field of `Tags` is, beside its type."""

    tag: str  # its `Tag`, by file and name in rerank_core/features: how it is computed and rendered
    doc: str  # of its column in `reranked`


class Tags(NamedTuple):
    """The tags of one candidate of one query; never derived from labels. One line is one tag.

    From its line follow the column in `reranked` (int, str, bool or tuple[str, ...]), the rendering in the model's
    input and its special tokens, what a training forges, and the tag ablation: see docs/extending.md.
    """

    hop: Annotated[int, Field("hop.HOP", "Tag: entity distance from the query, -1 unreachable")]
    role: Annotated[str, Field("role.ROLE", "Tag: rhetorical role")]
    entities: Annotated[tuple[str, ...], Field("entities.ENT", "Tag: named entities, most telling first")]
    causal: Annotated[bool, Field("causal.CAUSAL", "Tag: holds causal language")]
    reasoning: Annotated[bool, Field("reasoning.REASONING", "Tag: dense in entities")]
    hop_chain: Annotated[
        tuple[str, ...], Field("hop.CHAIN", "How the query leads here: entity, passage_id, entity, ...")
    ] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Tags | None:
        """The tags in a row of `reranked`, as far as its columns were read; None where the run was not tagged."""
        read = {name: row[name] for name in cls._fields if name in row}
        if None in read.values():
            return None
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in read.items()}
        return cls(**values)


FIELDS: dict[str, tuple[Any, Field]] = {
    name: (hint.__origin__, hint.__metadata__[0])
    for name, hint in get_type_hints(Tags, include_extras=True).items()
}
"""The Python type and the `Field` of each field of `Tags`."""
