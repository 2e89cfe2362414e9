"""Where the values of fields are, in every index: a field may be searched without being in `_source` by its own name.

A multi-field, an alias and the target of a `copy_to` are in `_source` under other names; what `_source` excludes is
returned if the mapping stores it; scripted runtime fields and constants come by the search's `fields`. A field that
cannot be returned at all is an error before anything is read: its absence would be taken for an empty value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from elasticsearch import Elasticsearch as Client

from rerank_core.errors import SourceError

_MODE, _KEEP = "index.mapping.source.mode", "index.mapping.synthetic_source_keep"
_SCALARS = frozenset((str, int, float, bool))
_OBJECTS = {"object", "nested", "flattened", "passthrough"}


class Place(NamedTuple):
    """Where the values of one field are in the hits of one index."""

    paths: tuple[str, ...] = ()  # in `_source`
    stored: str = ""  # name in a hit's `fields`, requested by `stored_fields`
    computed: str = ""  # name in a hit's `fields`, requested by `fields`


class Fields(NamedTuple):
    """The places of fields in all indices of a search; picklable."""

    names: tuple[str, ...]
    places: dict[str, dict[str, Place]] | None = None  # by index, by field; what is absent has its own name
    sourceless: bool = False  # an index stores no `_source`

    def place(self, index: str, name: str) -> Place:
        """Where a field is in the hits of an index."""
        return (self.places or {}).get(index, {}).get(name) or Place((name,))

    @property
    def usual(self) -> bool:
        """Whether every field is in `_source` by its own name."""
        return all(place == Place((name,)) for name, place in self._every())

    @property
    def source(self) -> list[str] | bool:
        """What a request asks of `_source`: Elasticsearch refuses to filter what an index does not store."""
        paths = list(dict.fromkeys(path for _, place in self._every() for path in place.paths))
        return bool(paths) if self.sourceless else paths or False

    @property
    def stored(self) -> list[str]:
        """What a request asks as `stored_fields`."""
        return sorted({place.stored for _, place in self._every() if place.stored})

    @property
    def computed(self) -> list[str]:
        """What a search asks as `fields`."""
        return sorted({place.computed for _, place in self._every() if place.computed})

    def _every(self) -> Iterator[tuple[str, Place]]:
        for index in self.places or ("",):
            yield from ((name, self.place(index, name)) for name in self.names)

    def values(self, hit: Mapping[str, Any], name: str, *, nulls: bool = False) -> list[Any]:
        """The values of a field in a hit, as Elasticsearch takes them: lists flattened, and nulls left out or kept."""
        place = self.places[hit["_index"]].get(name) if self.places and hit["_index"] in self.places else None
        source = hit.get("_source")
        if place is None and "." not in name and isinstance(source, dict):  # nearly always
            value = source.get(name)
            return [value] if isinstance(value, str) else leaves(value, ("",), nulls=nulls)
        paths, stored, computed = place or Place((name,))
        if paths:
            return leaves(source, paths, nulls=nulls)
        return leaves(hit.get("fields"), (stored or computed,), dotted=False) if stored or computed else []


def leaves(tree: Any, paths: tuple[str, ...], *, dotted: bool = True, nulls: bool = False) -> list[Any]:
    """All values at some paths of a `_source`, in the document's order; "a.b" is one key or nested objects."""
    found, stack = [], [(tree, paths)]
    while stack:  # a list may be nested deeper than Python recurses
        value, rests = stack.pop()
        if isinstance(value, list) and rests == ("",) and _SCALARS.issuperset(map(type, value)):
            found += value
        elif isinstance(value, list):
            stack.extend((item, rests) for item in reversed(value))
        elif rests == ("",):
            found += [value] if nulls or value is not None else []
        elif isinstance(value, dict):
            below = ((inner, _below(key, rests, dotted)) for key, inner in value.items())
            stack.extend([(inner, rest) for inner, rest in below if rest][::-1])
    return found


def _below(key: str, paths: tuple[str, ...], dotted: bool) -> tuple[str, ...]:
    """What is left of the paths below a key; ("",) at the end of one."""
    if key in paths:
        return ("",)
    return tuple(path[len(key) + 1 :] for path in paths if dotted and path.startswith(f"{key}."))


def find_fields(
    client: Client, index: str, settings: Mapping[str, str], *, sorted_by: str = "", ordered: str = ""
) -> Fields:
    """The places of some fields in every index that `index` names.

    Args:
        client, index: where.
        settings: the configuration's key of each field, by the field's name.
        sorted_by: a field that hits are sorted by, whose values so come with them anyway.
        ordered: a field of which the order of values counts.

    Raises:
        SourceError: an index searches a field that it cannot return, or no index has it; names index and field.
    """
    mappings = client.indices.get_mapping(index=index).body
    modes = client.indices.get_settings(index=index, name=f"{_MODE},{_KEEP}", flat_settings=True).body
    places: dict[str, dict[str, Place]] = {}
    sourceless = False
    for name, body in sorted(mappings.items()):
        of_index = modes.get(name, {}).get("settings", {})
        mapping = Mapped(
            body.get("mappings") or {}, mode=of_index.get(_MODE, ""), keep=of_index.get(_KEEP, "")
        )
        sourceless = sourceless or not mapping.sourced
        for field, setting in settings.items():
            try:
                place = mapping.place(field, ordered=field == ordered)
            except Unreadable as why:
                if field == sorted_by:
                    places.setdefault(name, {})[field] = Place()
                    continue
                raise SourceError(f"{setting} = {field!r}: the index {name} {why}") from None
            if place != Place((field,)):
                places.setdefault(name, {})[field] = place
    return Fields(tuple(settings), places, sourceless)


class Unreadable(Exception):
    """An index cannot return a field; the message says why, and the remedy."""


class _Field(NamedTuple):
    """A field of a mapping."""

    mapping: Mapping[str, Any]
    base: str  # the field itself; of a multi-field, the one that it belongs to
    nested: bool  # within a nested object

    @property
    def kind(self) -> str:
        return str(self.mapping.get("type") or "object")


class Mapped:
    """The mapping of one index: which field is where."""

    def __init__(self, mapping: Mapping[str, Any], *, mode: str = "", keep: str = "") -> None:
        source = mapping.get("_source") or {}
        self._runtime: Mapping[str, Any] = mapping.get("runtime") or {}
        self._fields = dict(_flat(mapping.get("properties") or {}, prefix="", nested=False))
        mode = source.get("mode", mode)
        self.sourced = source.get("enabled", True) and mode != "disabled"
        self._sorts = mode == "synthetic" and keep != "arrays"
        self._includes, self._excludes = source.get("includes") or [], source.get("excludes") or []
        self._copied: dict[str, list[str]] = {}
        for name, field in self._fields.items():
            targets = field.mapping.get("copy_to") or []
            for target in [targets] if isinstance(targets, str) else targets:
                self._copied.setdefault(target, []).append(name)

    def place(self, name: str, *, ordered: bool = False) -> Place:
        """Where a field is; a field that is not mapped may yet be in `_source` by its own name.

        Raises:
            Unreadable: the index cannot return it.
        """
        for start in (name, name.rpartition(".")[0]):  # a composite runtime field has fields of its own
            if runtime := self._runtime.get(start):
                return Place(computed=name) if "script" in runtime else self._in_source(name, (name,))
        field = self._fields.get(name)
        if field is None:
            return Place((name,) if self.sourced and self._kept(name) else ())
        if field.kind == "alias":
            return self.place(field.mapping["path"], ordered=ordered)
        if field.kind == "constant_keyword":
            return Place(computed=name)
        if field.kind in _OBJECTS:
            raise Unreadable(f"has it as an object ({field.kind}), not as a value; name a field in it")
        if ordered and self._sorted(self._fields[field.base]):
            remedy = 'map it with "synthetic_source_keep": "arrays", or leave it out of log.fields'
            raise Unreadable(f"sorts its values, since its _source is synthetic; {remedy}")
        return self._in_source(name, (field.base, *self._copied.get(field.base, ())))

    def _sorted(self, field: _Field) -> bool:
        kept = field.mapping.get("synthetic_source_keep") in ("arrays", "all")
        return self._sorts and not kept and field.mapping.get("doc_values", field.kind != "text")

    def _in_source(self, name: str, paths: tuple[str, ...]) -> Place:
        if self.sourced and all(map(self._kept, paths)):
            return Place(paths)
        known = [(at, self._fields[at]) for at in (name, paths[0]) if at in self._fields]
        for at, field in known:
            if field.mapping.get("store") and not field.nested:
                return Place(stored=at)
        why = "leaves it out of _source (includes or excludes)" if self.sourced else "has _source disabled"
        remedy = 'name a field that it returns, or reindex with the field in _source or with "store": true'
        raise Unreadable(f"{why} and does not store it, so its values cannot be read; {remedy}")

    def _kept(self, path: str) -> bool:
        """Whether a path is in the stored `_source`."""
        if any(_covers(pattern, path) for pattern in self._excludes):
            return False
        return not self._includes or any(_covers(pattern, path) for pattern in self._includes)


def _flat(properties: Mapping[str, Any], *, prefix: str, nested: bool) -> Iterator[tuple[str, _Field]]:
    for key, mapping in properties.items():
        name, inside = f"{prefix}{key}", nested or mapping.get("type") == "nested"
        yield name, _Field(mapping, name, nested)
        for sub, multi in (mapping.get("fields") or {}).items():
            yield f"{name}.{sub}", _Field(multi, name, nested)
        yield from _flat(mapping.get("properties") or {}, prefix=f"{name}.", nested=inside)


def _covers(pattern: str, path: str) -> bool:
    """Whether a pattern of `_source` names a path or an object around it."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*") + r"(\..*)?", path) is not None


def field_types(client: Client, index: str, field: str, *, setting: str) -> set[str]:
    """The types that the mappings give a field.

    Raises:
        SourceError: no mapping has it.
    """
    everything = client.field_caps(index=index, fields=[field]).body["fields"]
    if kinds := _kinds(everything).get(field):
        return kinds
    known = _kinds(client.field_caps(index=index, fields="*").body["fields"])
    near = difflib.get_close_matches(field, known, n=5, cutoff=0) or ["none"]
    raise SourceError(
        f"{index} has no field {field!r}, which {setting} names; its fields are {', '.join(near)}"
    )


def _kinds(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Types by field; without fields of Elasticsearch's own."""
    return {
        name: set(kinds)
        for name, kinds in fields.items()
        if not any(kind["metadata_field"] for kind in kinds.values())
    }
