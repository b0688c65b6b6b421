"""Importing a list file into the hash set: opening, choosing the reader, counting what is bad, compiling."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from uploadguard.activation import MIN_BOUND_ENTRIES, Gate, Judgement, ListSafety
from uploadguard.errors import HeldListError, ListError, ListFormatError, ShrunkListError
from uploadguard.hashset import Compilation, HashSet, ListInfo, ListUpdate
from uploadguard.hashset.metadata import Role
from uploadguard.lists import HEAD_BYTES, BadLine, ListEntry, ReadOptions, choose_reader, open_list
from uploadguard.lists.local import LOCAL_LISTS
from uploadguard.plugins import Plugins
from uploadguard.signals.base import lookup_kinds

__all__ = ["FileUpdate", "ImportWatcher", "ListImport", "check_not_local", "import_list", "update_from_file"]


_MAX_REASONS = 20
_OTHER_REASONS = "other signal types, not registered here"
"""Reasons hold names from the file, which may be as many as its lines."""


@dataclass(frozen=True, slots=True)
class ListImport:
    """What an import did.

    ``info`` is the list as it stands now; ``entries`` and ``hashes``, by signal type, count what this import brought.
    ``ignored`` counts hashes of signal types that are not registered, by the reason that names them. Where it is staged
    and not ``in_force``, ``info`` is the list as it would be. ``judgement`` is None where the settings want no trial.
    """

    info: ListInfo
    format: str
    generation: int
    entries: int
    hashes: Mapping[str, int]
    bad_lines: int
    ignored: Mapping[str, int]
    in_force: bool = True
    judgement: Judgement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The import as JSON types."""
        return {
            "list": self.info.name,
            "role": self.info.role,
            "format": self.format,
            "generation": self.generation,
            "entries": self.entries,
            "hashes": dict(self.hashes),
            "bad_lines": self.bad_lines,
            "ignored_hashes": dict(self.ignored),
            "entries_total": self.info.entries,
            "hashes_total": dict(self.info.hashes),
            "in_force": self.in_force,
            "safety": self.judgement.to_dict() if self.judgement is not None else None,
        }


@dataclass(frozen=True, slots=True)
class FileUpdate:
    """What an update of a list did: as :class:`~uploadguard.hashset.ListUpdate`, and what was wrong with the file.

    ``format`` is None where there was no file, ``judgement`` where nothing changed or the settings want no trial.
    """

    update: ListUpdate
    format: str | None
    bad_lines: int
    ignored: Mapping[str, int]
    judgement: Judgement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The update as JSON types."""
        return {
            "list": self.update.info.name,
            "format": self.format,
            "generation": self.update.generation,
            "added": self.update.added,
            "removed": self.update.removed,
            "bad_lines": self.bad_lines,
            "ignored_hashes": dict(self.ignored),
            "entries_total": self.update.info.entries,
            "hashes_total": dict(self.update.info.hashes),
            "in_force": self.update.in_force,
            "safety": self.judgement.to_dict() if self.judgement is not None else None,
        }


class ImportWatcher(Protocol):
    """Is told how an import goes."""

    def bad_line(self, bad: BadLine) -> None:
        """A line, or a hash in it, was left out."""

    def bytes_read(self, count: int) -> None:
        """So many bytes of the file were read so far."""

    def compiling(self, done_bytes: int, total_bytes: int) -> None:
        """The file was read to its end; of its indexes so many bytes are written, of about so many."""


class _Nobody:
    """An :class:`ImportWatcher` that does nothing."""

    def bad_line(self, bad: BadLine) -> None: ...

    def bytes_read(self, count: int) -> None: ...

    def compiling(self, done_bytes: int, total_bytes: int) -> None: ...


class _Reading:
    """Passes on a reader's entries, and counts."""

    def __init__(self, items: Iterable[ListEntry | BadLine], watcher: ImportWatcher, strict: bool):
        self.fewest = 0
        """How many entries there must be."""
        self._items = items
        self._watcher = watcher
        self._strict = strict
        self.entries = 0
        self.bad_lines = 0
        self.hashes: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ListEntry]:
        for item in self._items:
            if isinstance(item, ListEntry):
                self.entries += 1
                for name, _ in item.hashes:
                    self.hashes[name] += 1
                yield item
            elif item.ignored:
                known = item.reason in self.ignored or len(self.ignored) < _MAX_REASONS
                self.ignored[item.reason if known else _OTHER_REASONS] += 1
            else:
                self.bad_lines += 1
                self._watcher.bad_line(item)
                if self._strict:
                    of_item = item.unit == "item"
                    raise ListFormatError(
                        f"{f'item {item.line}: ' if of_item else ''}{item.reason}; the import is strict",
                        line=None if of_item else item.line,
                    )
        if self.entries < self.fewest:
            raise ShrunkListError(
                f"the file has {self.entries:,} entries, and the list that it would replace so many more that this is "
                "most likely a mistake: see hashset.max_shrink_percent, or import it with --allow-shrink"
            )


def import_list(
    hashset: HashSet,
    name: str,
    source: Path | BinaryIO,
    plugins: Plugins,
    *,
    format_name: str | None = None,
    signal_type: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    delimiter: str | None = None,
    role: Role = "deny",
    replace: bool = False,
    append: bool = False,
    strict: bool = False,
    stage: bool = False,
    allow_shrink: bool = False,
    watcher: ImportWatcher | None = None,
) -> ListImport:
    """Import a file, or a binary file object from where it stands, as the list ``name``.

    It is tried first, by the settings of ``plugins``: within the bounds of ``[safety]`` it comes into force, otherwise
    it is staged and :class:`~uploadguard.errors.HeldListError` is raised. ``stage``, or ``safety.activation`` "manual",
    stages it in any case. With "direct" nothing is tried, and only a file that is far smaller than the list it replaces
    is refused: :class:`~uploadguard.errors.ShrunkListError`. ``allow_shrink`` lifts that bound.

    ``format_name`` names the reader; without it the file's head decides. ``strict``: a bad line stops the import.
    The other options are those of :class:`~uploadguard.lists.ReadOptions` and
    :meth:`~uploadguard.hashset.HashSet.add_list`. Raises :class:`~uploadguard.errors.ListError` and
    :class:`~uploadguard.errors.HashSetError` of all kinds; the lists in force are then as they were.
    """
    check_not_local(name)
    options = ReadOptions(
        signal_types=plugins.signal_types, signal_type=signal_type, columns=columns, delimiter=delimiter
    )
    watcher = watcher if watcher is not None else _Nobody()
    gate = _gate(plugins, stage=stage, allow_shrink=allow_shrink)
    with _opened(source, plugins, options, format_name, strict, watcher) as (reading, format_found, shown):
        kinds = lookup_kinds(plugins.signal_types.values())
        if gate is None:
            if replace and not allow_shrink:
                reading.fewest = _fewest(hashset, name, plugins.settings.hashset.max_shrink_percent)
            info = hashset.add_list(
                name,
                reading,
                kinds,
                role=role,
                source=shown,
                replace=replace,
                append=append,
                compiling=watcher.compiling,
            )
            update = ListUpdate(info, hashset.generation, info.entries, 0)
        else:
            update = hashset.staging.add_list(
                name,
                reading,
                Compilation(kinds, shown, compiling=watcher.compiling),
                judge=gate,
                role=role,
                replace=replace,
                append=append,
            )
    done = ListImport(
        info=update.info,
        format=format_found,
        generation=update.generation,
        entries=reading.entries,
        hashes=dict(reading.hashes),
        bad_lines=reading.bad_lines,
        ignored=dict(reading.ignored),
        in_force=update.in_force,
        judgement=gate.judgement if gate is not None else None,
    )
    _raise_if_held(gate, done)
    return done


def _gate(plugins: Plugins, *, stage: bool, allow_shrink: bool = False) -> Gate | None:
    """What a change has to pass; None where the settings want it in force untried."""
    if plugins.settings.safety.activation == "direct" and not stage:
        return None
    return ListSafety(plugins.settings, plugins).gate(stage=stage, allow_shrink=allow_shrink)


def _raise_if_held(gate: Gate | None, done: ListImport | FileUpdate) -> None:
    if gate is not None and gate.held_for:
        raise HeldListError(gate.held_for, done)


def check_not_local(name: str) -> None:
    """Raise :class:`~uploadguard.errors.ListError` for a list that is the ledger's to change."""
    if name in LOCAL_LISTS:
        raise ListError("the list of this name is what reviewers decided, kept by the ledger: choose another name")


def _fewest(hashset: HashSet, name: str, max_shrink_percent: int) -> int:
    """How many entries must take the place of a list's."""
    entries = next((info.entries for info in hashset.lists() if info.name == name), 0)
    return -(-entries * (100 - max_shrink_percent) // 100) if entries >= MIN_BOUND_ENTRIES else 0


def update_from_file(
    hashset: HashSet,
    name: str,
    source: Path | BinaryIO | None,
    plugins: Plugins,
    *,
    removed: Iterable[str] = (),
    format_name: str | None = None,
    signal_type: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    delimiter: str | None = None,
    strict: bool = False,
    stage: bool = False,
    restage: bool = False,
    watcher: ImportWatcher | None = None,
) -> FileUpdate:
    """Take the entries of the ids ``removed`` out of the list ``name``, then put those of a file in.

    Each entry of the file replaces those of its id, so that each must have one. It is tried first as an import is.
    ``restage``: this has all that is staged for the list already, and takes its place. The other options and errors are
    those of :func:`import_list` and :meth:`~uploadguard.hashset.HashSet.update_list`.
    """
    check_not_local(name)
    kinds = lookup_kinds(plugins.signal_types.values())
    watcher = watcher if watcher is not None else _Nobody()
    gate = _gate(plugins, stage=stage)

    def change(entries: Iterable[ListEntry], shown: str | None) -> ListUpdate:
        if gate is None:
            return hashset.update_list(name, entries, removed, kinds, source=shown, compiling=watcher.compiling)
        how = Compilation(kinds, shown, compiling=watcher.compiling)
        return hashset.staging.update_list(name, entries, removed, how, judge=gate, restage=restage)

    if source is None:
        done = FileUpdate(change((), None), None, 0, {})
    else:
        options = ReadOptions(
            signal_types=plugins.signal_types, signal_type=signal_type, columns=columns, delimiter=delimiter
        )
        with _opened(source, plugins, options, format_name, strict, watcher) as (reading, format_found, shown):
            update = change(_with_ids(reading), shown)
        done = FileUpdate(update, format_found, reading.bad_lines, dict(reading.ignored))
    done = replace_fields(done, judgement=gate.judgement if gate is not None else None)
    _raise_if_held(gate, done)
    return done


def _with_ids(entries: Iterable[ListEntry]) -> Iterator[ListEntry]:
    for entry in entries:
        if entry.numbered:
            raise ListFormatError(
                "an entry without an id, which could not be told from others; append the file instead", line=entry.line
            )
        yield entry


@contextmanager
def _opened(
    source: Path | BinaryIO,
    plugins: Plugins,
    options: ReadOptions,
    format_name: str | None,
    strict: bool,
    watcher: ImportWatcher,
) -> Iterator[tuple[_Reading, str, str]]:
    """The file's entries, its format, and its name to show."""
    path = source if isinstance(source, Path) else None
    shown = os.fsencode(path.name).decode(errors="replace") if path is not None else "standard input"
    with _naming(path), closing(open_list(source, on_read=watcher.bytes_read)) as stream:
        reader = choose_reader(tuple(plugins.list_readers.values()), stream.peek(HEAD_BYTES), shown, format_name)
        yield _Reading(reader.read(stream, options), watcher, strict), reader.name, shown


@contextmanager
def _naming(path: Path | None) -> Iterator[None]:
    """Put the file's name into what a reader says of it, and what that means for the import."""
    try:
        yield
    except ListFormatError as error:
        reason = f"{error.reason}; nothing was imported"
        raise ListFormatError(reason, path=error.path or path, line=error.line) from error
