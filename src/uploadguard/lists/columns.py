"""What the columns of a table mean: from its header, the operator's mapping, or both."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from uploadguard.errors import ListFormatError
from uploadguard.lists.base import BadLine, ListEntry, ReadOptions
from uploadguard.lists.parsing import (
    HASH_KEYS,
    MAX_FIELD_CHARS,
    ROLES,
    EntryBuilder,
    as_text,
    is_hash_key,
    looks_like_hash,
    normalise,
    role_of,
)
from uploadguard.lists.records import DELIMITERS, cells_of

__all__ = [
    "Layout",
    "is_header",
    "is_heading",
    "plan",
    "plan_by_number",
    "sniff_delimiter",
    "sniff_delimiter_by_number",
]

_MAX_COLUMNS = 1000
_MAX_HEADINGS_SHOWN = 20
# A letter that hex has not, so that a hash that lost its end is no heading.
_WORDS = re.compile(r"(?=.*[^\W\d_a-fA-F])[^\W\d_][\w ./()#-]{0,39}")
# What may be part of a hash, or of anything else than a heading.
_NOT_SHOWN = re.compile(r".*(?:[0-9a-fA-F]{8}|[0-9A-Za-z+/=]{20})|.{41}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cell is what, by index from 0. ``hashes`` pairs a column with its signal type, None for a bare hash.

    In the long form ``signal_type`` is the column that names the signal type of the bare hash. A record needs
    ``least_width`` cells to be read; what is missing of ``width`` counts as empty.
    """

    width: int
    least_width: int
    hashes: tuple[tuple[int, str | None], ...]
    fields: tuple[tuple[int, str], ...]
    entry_id: int | None = None
    category: int | None = None
    signal_type: int | None = None

    def read(self, number: int, cells: Sequence[str], builder: EntryBuilder) -> Iterator[ListEntry | BadLine]:
        """The entry and the bad lines of one record."""
        if len(cells) < self.width:
            if len(cells) < self.least_width:
                return iter([BadLine(number, f"{len(cells)} columns, fewer than the {self.least_width} needed")])
            cells = [*cells, *[""] * (self.width - len(cells))]
        written = [(name, cells[index]) for index, name in self.hashes]
        if self.signal_type is not None and (called := cells[self.signal_type].strip()):
            named = builder.resolve(called) or called
            written = [(name if name is not None else named, text) for name, text in written]
        return builder.build(
            number,
            written,
            as_text(cells[self.entry_id]) if self.entry_id is not None else None,
            as_text(cells[self.category]) if self.category is not None else None,
            {
                name: text
                for index, name in self.fields
                if (text := cells[index].strip()) and len(text) <= MAX_FIELD_CHARS
            },
        )

    def is_entry(self, cells: Sequence[str], builder: EntryBuilder) -> bool:
        """Whether the record holds a hash that can be used."""
        return any(isinstance(item, ListEntry) for item in self.read(1, cells, builder))


def is_header(cells: Sequence[str], builder: EntryBuilder) -> bool:
    """Whether a record names a signal type or a ``hash`` column, and holds nothing that looks like a hash."""
    return _named(cells, builder) > 0 and not any(looks_like_hash(cell.strip()) for cell in cells)


def is_heading(cells: Sequence[str], layout: Layout) -> bool:
    """Whether a table's first record, where columns are mapped by number, is a heading: words instead of hashes."""
    return (
        len(cells) >= layout.least_width
        and all(_WORDS.fullmatch(cells[index].strip()) is not None for index, _ in layout.hashes)
        and not any(looks_like_hash(cell.strip()) or cell.strip().isdecimal() for cell in cells)
    )


def sniff_delimiter(header: str, builder: EntryBuilder, columns: Mapping[str, str]) -> str:
    """The delimiter that makes the most sense of a header: known names count first, then the columns."""
    wanted = frozenset(normalise(column) for column in columns.values())

    def sense(delimiter: str) -> tuple[int, int]:
        cells = cells_of(header, delimiter) or header.split(delimiter)
        return _named(cells, builder, wanted), len(cells)

    return max(DELIMITERS, key=sense)


def sniff_delimiter_by_number(lines: Sequence[str], builder: EntryBuilder, layout: Layout) -> str:
    """The delimiter with which the most of these lines, of a table without a header, are entries.

    Where none are, as with a mapping to columns that are not there, the one that the most lines have equally often.
    """

    def sense(delimiter: str) -> tuple[int, int, int]:
        records = [cells for line in lines if (cells := cells_of(line, delimiter)) is not None]
        widths = Counter(len(cells) for cells in records if len(cells) > 1)
        width, alike = widths.most_common(1)[0] if widths else (1, 0)
        return sum(layout.is_entry(cells, builder) for cells in records), alike, width

    return max(DELIMITERS, key=sense)


def plan(header: Sequence[str], options: ReadOptions, builder: EntryBuilder, line: int) -> Layout:
    """The layout of a table by its header, which is in ``line``, and the mapping.

    Raises :class:`~uploadguard.errors.ListFormatError` if the mapping does not fit or no column holds hashes. Never
    shows a cell: it may be a hash.
    """
    if any(looks_like_hash(cell.strip()) for cell in header):
        raise ListFormatError("a hash where the header should be: map the columns by number", line=line)
    roles = {role_of(meaning, builder): _index(column, header, line) for meaning, column in options.columns.items()}
    keys = [normalise(cell) for cell in header]
    taken = set(roles.values())
    for index, cell in enumerate(header):
        name = builder.resolve(cell)
        if index not in taken and name is not None and name not in roles:
            roles[name] = index
            taken.add(index)
    long_form = "hash" in roles or all(role in ROLES for role in roles)
    for role, names in ROLES.items():
        if role not in roles and (long_form or role in ("id", "category")):
            found = [index for key in names for index, have in enumerate(keys) if have == key and index not in taken]
            if found:
                roles[role] = found[0]
                taken.add(found[0])
    return _layout(roles, len(header), len(header), header, line)


def plan_by_number(options: ReadOptions, builder: EntryBuilder, width: int | None = None) -> Layout | None:
    """The layout of a table without a header; None if a column has a name. ``width`` is that of its widest first
    records, if it is known.

    Raises :class:`~uploadguard.errors.ListFormatError` if the mapping gives no column of hashes, or one that the table
    does not have.
    """
    if not options.columns or not all(column.isdecimal() and int(column) > 0 for column in options.columns.values()):
        return None
    roles = {role_of(meaning, builder): int(column) - 1 for meaning, column in options.columns.items()}
    least_width = 1 + max(roles.values())
    if least_width > _MAX_COLUMNS:
        raise ListFormatError(f"a column number is over {_MAX_COLUMNS}")
    if width is not None and width < least_width:
        raise ListFormatError(f"there is no column {least_width}: the table has {width}; is it the right delimiter?")
    return _layout(roles, width or least_width, least_width, None, None)


def _named(cells: Sequence[str], builder: EntryBuilder, wanted: frozenset[str] = frozenset()) -> int:
    """How many of the cells are names of columns."""
    keys = [normalise(cell) for cell in cells if cell.strip()]
    return sum(key in wanted or key in HASH_KEYS or builder.resolve(key) is not None for key in keys)


def _layout(
    roles: Mapping[str, int], width: int, least_width: int, header: Sequence[str] | None, line: int | None
) -> Layout:
    hashes: list[tuple[int, str | None]] = [(index, role) for role, index in roles.items() if role not in ROLES]
    if "hash" in roles:
        hashes.append((roles["hash"], None))
    if not hashes:
        raise ListFormatError(
            f"no column holds hashes: name one after its signal type, or map it{_headings(header, 'md5')}", line=line
        )
    return Layout(
        width=width,
        least_width=least_width,
        hashes=tuple(hashes),
        fields=tuple(_field_names(header, width, set(roles.values()))),
        entry_id=roles.get("id"),
        category=roles.get("category"),
        signal_type=roles.get("signal_type"),
    )


def _index(column: str, header: Sequence[str], line: int) -> int:
    wanted = column.strip().lower()
    for index, cell in enumerate(header):
        if cell.strip().lower() == wanted:
            return index
    if column.isdecimal() and 1 <= int(column) <= len(header):
        return int(column) - 1
    raise ListFormatError(f"no column {column!r} among the {len(header)} columns{_headings(header)}", line=line)


def _headings(header: Sequence[str] | None, example: str | None = None) -> str:
    """The headings of a table for an error's end, with a mapping that can be copied. Leaves out what may be a hash."""
    shown = [cell.strip() for cell in header or () if cell.strip() and _NOT_SHOWN.match(cell) is None]
    shown = [cell for cell in shown if cell.isprintable()][:_MAX_HEADINGS_SHOWN]
    if not shown:
        return ""
    mapping = f"{example}={shown[0]}"
    how = f", as in --column {shlex.quote(mapping)}" if example is not None else ""
    return f"{how}; the headings are: {', '.join(shown)}"


def _field_names(header: Sequence[str] | None, width: int, taken: set[int]) -> Iterator[tuple[int, str]]:
    """The other columns with a distinct name each; those that hold hashes by their name are left out."""
    used: set[str] = set()
    for index in range(width):
        given = header[index].strip() if header is not None else ""
        if index in taken or is_hash_key(given):
            continue
        name = base = given or f"column_{index + 1}"
        suffix = 2
        while name in used:
            name = f"{base}_{suffix}"
            suffix += 1
        used.add(name)
        yield index, name
