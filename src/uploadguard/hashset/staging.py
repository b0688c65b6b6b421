"""Changes of lists that were compiled and are not in force: staged, judged, activated, discarded.

A staged change is a segment like any other, which the manifest names apart: readers do not open it, and putting it in
force replaces the manifest and nothing else. A change that the caller's judge finds good is never staged at all: it is
judged between its compilation and the manifest, under the write lock, so that what was judged is what comes into force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.errors import SegmentError, StagedListError, UnknownListError
from uploadguard.hashset.changes import (
    Compilation,
    ListUpdate,
    apply_change,
    check_role,
    check_stored_alike,
    compile_list,
    compile_update,
    of_list,
)
from uploadguard.hashset.compaction import is_due
from uploadguard.hashset.directory import Directory
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.manifest import ListChange, Manifest, SegmentRecord
from uploadguard.hashset.metadata import ListInfo, Role

if TYPE_CHECKING:
    from uploadguard.lists.base import ListEntry

__all__ = ["Candidate", "Judge", "StagedChange", "Staging"]


@dataclass(frozen=True, slots=True)
class StagedChange:
    """A change that is staged: what it is, the list as it is (None: there is none) and as it would be.

    ``outdated`` is one sentence where the list was changed meanwhile in a way that keeps it from being activated.
    """

    change: ListChange
    before: ListInfo | None
    after: ListInfo
    size_bytes: int
    outdated: str | None = None

    @property
    def list_name(self) -> str:
        """The list that it changes."""
        return self.change.list_name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compiled change, to be judged: the list as it is (None: there is none) and as it would be.

    The three generations are opened when they are asked for, without reading the segments. They stay good for look-ups
    as long as they are held. ``change`` None: it is a list in force that is looked at, and brings all of itself.
    """

    change: ListChange | None
    before: ListInfo | None
    after: ListInfo
    _files: Directory = field(repr=False)
    _present: tuple[SegmentRecord, ...] = field(repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether what it brings is all that the list would hold."""
        return self.change is None or self.change.kind in ("new", "replace")

    def brought(self) -> Generation:
        """The entries that the change brings, and nothing else."""
        return self._open([self.change.segment] if self.change is not None else self._present)

    def result(self) -> Generation:
        """The whole list as it would be."""
        return self._open(self.change.result(self._present) if self.change is not None else self._present)

    def current(self) -> Generation:
        """The list as it is; empty where there is none."""
        return self._open(self._present if self.change is not None else ())

    def _open(self, records: Sequence[SegmentRecord]) -> Generation:
        try:
            return Generation.of(self._files.open_segments(records))
        except FileNotFoundError:
            raise StagedListError("the list was changed while it was looked at; try again") from None


Judge = Callable[[Candidate], bool]
"""Whether a change may come into force. What it raises ends the change: nothing is staged, and nothing in force."""


class Staging:
    """What is staged in one hash set; see :attr:`uploadguard.hashset.HashSet.staging`."""

    def __init__(self, files: Directory, keep_previous: int, compact_beside: Callable[[str], None]) -> None:
        self._files = files
        self._keep_previous = keep_previous
        self._compact_beside = compact_beside

    def changes(self) -> tuple[StagedChange, ...]:
        """What is staged, in the order in which it was."""
        manifest = self._files.read()
        return tuple(
            StagedChange(
                change, *_lists(manifest, change), size_bytes=change.segment.size_bytes,
                outdated=_outdated(manifest, change),
            )
            for change in manifest.staged
        )  # fmt: skip

    def add_list(
        self,
        name: str,
        entries: Iterable[ListEntry],
        how: Compilation,
        *,
        judge: Judge | None = None,
        role: Role = "deny",
        replace: bool = False,
        append: bool = False,
    ) -> ListUpdate:
        """Compile an import, and stage it, or put it in force if ``judge`` says so.

        With ``replace`` it takes the place of what is staged for the list, too; without, that must have been activated
        or discarded: :class:`StagedListError`. Else as :meth:`~uploadguard.hashset.HashSet.add_list`.
        """
        with self._files.writing() as (manifest, stamp):
            if not replace:
                _require_nothing_staged(manifest, name)
            change = compile_list(self._files, manifest, name, entries, how, role=role, replace=replace, append=append)
            changed, update = self._judged(manifest, change, judge)
            self._files.write(changed, after=stamp)
        return update

    def update_list(
        self,
        name: str,
        added: Iterable[ListEntry],
        removed: Iterable[str],
        how: Compilation,
        *,
        judge: Judge | None = None,
        restage: bool = False,
    ) -> ListUpdate:
        """Compile an update, and stage it, or put it in force if ``judge`` says so.

        What is staged for the list must have been activated or discarded (:class:`StagedListError`), unless
        ``restage`` says that this update has all that is in there. Where nothing changes, nothing is staged: the list
        is noted as up to date. Else as :meth:`~uploadguard.hashset.HashSet.update_list`.
        """
        with self._files.writing() as (manifest, stamp):
            if not restage:
                _require_nothing_staged(manifest, name)
            change = compile_update(self._files, manifest, name, added, removed, how)
            if change is None:
                changed = manifest.confirm([name]).compacted(manifest.segments).unstage(name)
                update = ListUpdate(_list(changed, name), changed.generation, 0, 0)
            else:
                changed, update = self._judged(manifest, change, judge)
            self._files.write(changed, after=stamp)
        self._compact_if_due(update)
        return update

    def candidate(self, name: str) -> Candidate:
        """What is staged for a list, to be looked at. Raises :class:`UnknownListError` if nothing is."""
        manifest = self._files.read()
        return self._candidate(manifest, _staged(manifest, name))

    def in_force(self, name: str) -> Candidate:
        """A list as it is, to be looked at in the same way: as a change that brings all of it, and changes nothing.

        Raises :class:`UnknownListError`.
        """
        present = self._files.read().of_list(name)
        if not present:
            raise UnknownListError("there is no list of that name in the hash set")
        return Candidate(None, None, of_list(present), self._files, present)

    def activate(self, name: str, *, judge: Judge | None = None, replace_changed: bool = False) -> ListUpdate:
        """Put in force what is staged for a list, without compiling it again; it stays staged if ``judge`` says so.

        Its file is read and verified. The list counts as up to date. ``replace_changed``: a whole list takes the place
        of the one that is there, although that was changed after the staging. Raises :class:`UnknownListError` if
        nothing is staged, :class:`StagedListError` if the list has changed so that it does not fit any more, and
        :class:`~uploadguard.errors.SegmentError` if its file is damaged.
        """
        with self._files.writing() as (manifest, stamp):
            change = _staged(manifest, name)
            present = manifest.of_list(name)
            outdated = _outdated(manifest, change)
            if outdated is not None and not (replace_changed and change.kind in ("new", "replace")):
                raise StagedListError(outdated)
            if change.kind == "append":
                check_role(present, change.segment.metadata.role)
                kinds = change.segment.metadata.signals
                check_stored_alike(
                    present, {key: (kind.length_bytes, int(kind.kind == "hamming")) for key, kind in kinds.items()}
                )
            try:
                self._files.open_segments([change.segment])[0].verify()
            except FileNotFoundError as error:
                path = Path(error.filename)
                raise SegmentError("is missing; discard what is staged and stage it again", path=path) from None
            candidate = self._candidate(manifest, change)
            if judge is not None and not judge(candidate):
                return ListUpdate(candidate.after, manifest.generation, change.added, change.removed, in_force=False)
            changed = apply_change(
                self._files, manifest.unstage(name), change, keep_previous=self._keep_previous
            ).confirm([name])
            self._files.write(changed, after=stamp)
        update = ListUpdate(_list(changed, name), changed.generation, change.added, change.removed)
        self._compact_if_due(update)
        return update

    def discard(self, name: str) -> StagedChange:
        """Drop what is staged for a list; returns what that was. Raises :class:`UnknownListError` if nothing is."""
        with self._files.writing() as (manifest, stamp):
            change = _staged(manifest, name)
            self._files.write(manifest.unstage(name), after=stamp)
        return StagedChange(change, *_lists(manifest, change), size_bytes=change.segment.size_bytes)

    def _judged(self, manifest: Manifest, change: ListChange, judge: Judge | None) -> tuple[Manifest, ListUpdate]:
        candidate = self._candidate(manifest, change)
        if judge is None or not judge(candidate):
            update = ListUpdate(candidate.after, manifest.generation, change.added, change.removed, in_force=False)
            return manifest.stage(change), update
        changed = apply_change(
            self._files, manifest.unstage(change.list_name), change, keep_previous=self._keep_previous
        )
        info = _list(changed, change.list_name)
        return changed, ListUpdate(info, changed.generation, change.added, change.removed)

    def _candidate(self, manifest: Manifest, change: ListChange) -> Candidate:
        return Candidate(change, *_lists(manifest, change), self._files, manifest.of_list(change.list_name))

    def _compact_if_due(self, update: ListUpdate) -> None:
        if update.in_force and is_due(update.info):
            self._compact_beside(update.info.name)


def _staged(manifest: Manifest, name: str) -> ListChange:
    change = manifest.staged_of(name)
    if change is None:
        raise UnknownListError("nothing is staged for a list of that name")
    return change


def _require_nothing_staged(manifest: Manifest, name: str) -> None:
    if manifest.staged_of(name) is not None:
        raise StagedListError(
            "a change of the list is staged already, and would be lost: activate or discard it first, or replace the "
            "whole list"
        )


def _lists(manifest: Manifest, change: ListChange) -> tuple[ListInfo | None, ListInfo]:
    """The list as it is and as it would be."""
    present = manifest.of_list(change.list_name)
    return of_list(present) if present else None, of_list(change.result(present))


def _list(manifest: Manifest, name: str) -> ListInfo:
    return next(info for info in manifest.lists() if info.name == name)


def _outdated(manifest: Manifest, change: ListChange) -> str | None:
    """Why a change does not fit the list as it is by now; None where it does."""
    present = manifest.of_list(change.list_name)
    ids = tuple(record.metadata.segment_id for record in present)
    match change.kind:
        case "new" if present:
            return "there is a list of that name by now, which what is staged would replace"
        case "replace" if ids != change.base:
            return "the list was changed after this was staged, and what is staged would undo that"
        case "append" if not present:
            return "the list that it was to be added to is gone: discard it, and import it as a new list"
        case "update" if ids != change.base:
            return "the list was changed after this update was staged: discard it, and stage the update again"
    return None
