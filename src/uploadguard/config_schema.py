"""Looks into a settings model: its tables and keys, and what a key takes in words. Knows no setting by name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["Key", "Node", "Setting", "Shown", "child", "closest", "join_or", "root", "toml_value", "walk"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Marks an annotation: what a value looks like, in words, where its type alone does not say."""

    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """Marks a table whose keys are free: what a key is, and one for examples."""

    meaning: str
    example: str


class Node(NamedTuple):
    """A place in the model: an annotation with what is attached to it."""

    annotation: Any
    metadata: tuple[Any, ...] = ()

    @property
    def model(self) -> type[BaseModel] | None:
        """The model of a table with fixed keys."""
        return self.annotation if isinstance(self.annotation, type) and issubclass(self.annotation, BaseModel) else None

    @property
    def free_keys(self) -> Key | None:
        """What the keys are of a table whose keys are free."""
        if get_origin(self.annotation) is not Mapping:
            return None
        return next((mark for mark in self.metadata if isinstance(mark, Key)), Key("name", "name"))

    @property
    def is_table(self) -> bool:
        """Whether settings lie below this place."""
        return self.model is not None or self.free_keys is not None

    def key_names(self) -> list[str]:
        """The fixed keys, in the model's order; none where keys are free, or below a value."""
        return list(self.model.model_fields) if self.model is not None else []

    @property
    def takes_text(self) -> bool:
        """Whether the value is free text, to be taken as it is."""
        return self.annotation is str or self.annotation is Path

    def choices(self) -> list[str]:
        """The words among the values that it takes, where these can be counted."""
        return [arg for arg in get_args(self.annotation) if isinstance(arg, str)] if self._is_literal else []

    @property
    def _is_literal(self) -> bool:
        return get_origin(self.annotation) is Literal

    def type_text(self) -> str:
        """What a value must be, in words."""
        for mark in self.metadata:
            if isinstance(mark, Shown):
                return mark.text
        if self.is_table:
            return "a table"
        if self._is_literal:
            return join_or([toml_value(arg) for arg in get_args(self.annotation)])
        if get_origin(self.annotation) is tuple:
            return "a list of names"
        if self.annotation is bool:
            return "true or false"
        if self.annotation in (int, float):
            return ("a whole number" if self.annotation is int else "a number") + self._range_text()
        return "a path" if self.annotation is Path else "text"

    def _range_text(self) -> str:
        low = next((mark.ge for mark in self.metadata if hasattr(mark, "ge")), None)
        high = next((mark.le for mark in self.metadata if hasattr(mark, "le")), None)
        if low is not None and high is not None:
            return f", {low} to {high}"
        return f", {low} or more" if low is not None else ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key. ``path`` has example keys where they are free, ``shown`` has what they are, as ``<list>``.

    ``default`` is None where the key has none: it can be left out, or is below a free key. ``example`` is TOML.
    """

    path: tuple[str, ...]
    shown: str
    type_text: str
    default: object
    example: str
    meaning: str

    @property
    def below_free_key(self) -> bool:
        """Whether it can stand more than once, below keys that are free."""
        return "<" in self.shown


def root(model: type[BaseModel]) -> Node:
    """The node of a whole model."""
    return Node(model)


def child(node: Node, key: str | int) -> Node | None:
    """The node at a key of a table or an item of a list; None if there is no such key."""
    if node.model is not None:
        field = node.model.model_fields.get(str(key))
        return None if field is None else _field_node(field)
    if node.free_keys is not None:
        return _plain(get_args(node.annotation)[1])
    if get_origin(node.annotation) is tuple and isinstance(key, int):
        return _plain(get_args(node.annotation)[0])
    return None


def walk(model: type[BaseModel]) -> Iterator[Setting]:
    """Every setting of a model, a table's own keys before the tables inside it."""
    yield from _walk(root(model), (), (), fixed=True)


def closest(name: str, candidates: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The candidate that ``name`` is most likely a slip for, if any comes close."""
    return next(iter(difflib.get_close_matches(name, list(candidates), n=1, cutoff=cutoff)), None)


def join_or(texts: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def toml_value(value: object) -> str:
    """A default as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Sequence):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value)


def _walk(node: Node, path: tuple[str, ...], shown: tuple[str, ...], *, fixed: bool) -> Iterator[Setting]:
    if (free := node.free_keys) is not None:
        below = child(node, free.example)
        if below is not None:
            yield from _walk(below, (*path, free.example), (*shown, f"<{free.meaning}>"), fixed=False)
        return
    fields = node.model.model_fields if node.model is not None else {}
    nodes = {name: _field_node(field) for name, field in fields.items()}
    for name, field in fields.items():
        if not nodes[name].is_table:
            default = field.default
            example = (field.examples or [default])[0]
            yield Setting(
                path=(*path, name),
                shown=".".join((*shown, name)),
                type_text=nodes[name].type_text(),
                default=default if fixed else None,
                example=toml_value(example),
                meaning=field.description or "",
            )
    for name, below in nodes.items():
        if below.is_table:
            yield from _walk(below, (*path, name), (*shown, name), fixed=fixed)


def _field_node(field: FieldInfo) -> Node:
    node = _plain(field.annotation)
    return Node(node.annotation, (*field.metadata, *node.metadata))


def _plain(annotation: Any) -> Node:
    """The node of an annotation, without ``Annotated`` and ``| None``."""
    metadata: tuple[Any, ...] = ()
    while True:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation, metadata = args[0], (*metadata, *_flat(args[1:]))
        elif origin in (Union, types.UnionType) and len(args) == 2 and type(None) in args:
            annotation = next(arg for arg in args if arg is not type(None))
        else:
            return Node(annotation, metadata)


def _flat(marks: Sequence[Any]) -> Iterator[Any]:
    for mark in marks:
        yield from mark.metadata if isinstance(mark, FieldInfo) else (mark,)
