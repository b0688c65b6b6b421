"""The configuration written out from its model: the default file, and the table in docs/configuration.md."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from itertools import groupby

from uploadguard.config import Settings
from uploadguard.config_schema import Setting, child, root, toml_value, walk

__all__ = ["render_default_toml", "render_settings_table"]

_WIDTH = 100
_PREAMBLE = """\
uploadguard's configuration. Every setting stands here; those with a value have their default.
Settings behind a "#" have no default: they are examples. docs/configuration.md says more."""


_BY_INIT = (("ledger", "path"),)


def render_default_toml(*, beside: Collection[tuple[str, ...]] = ()) -> str:
    """A configuration file with every setting at its default, described; what ``uploadguard init`` writes.

    Settings below free keys (a list's name, a tenant's) are examples, commented out by a ``#`` without a blank; so are
    those without a default, but for the ledger's path and those that are named ``beside``: these are set to their
    example, which ``init`` makes.
    """
    blocks = [_comment(_PREAMBLE)]
    made = {*_BY_INIT, *beside}
    for table, settings in groupby(walk(Settings), key=lambda setting: setting.path[:-1]):
        blocks.append("\n".join(_table_lines(table, list(settings), made)))
    return "\n\n".join(blocks) + "\n"


def render_settings_table() -> str:
    """Every setting as a Markdown table: key, type, default, meaning. Those of tenants, which repeat, in one row."""
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for setting in walk(Settings):
        if setting.path[0] != "tenants":
            unset = "see rules" if setting.below_free_key else "none"
            default = f"`{toml_value(setting.default)}`" if setting.default is not None else unset
            rows.append(f"| `{setting.shown}` | {setting.type_text} | {default} | {setting.meaning} |")
    rows.append(
        "| `tenants.<tenant>.policy` | a table | none | The tenant's own `signals`, `lists` and `failures`, "
        "with the keys that these have in `policy`. |"
    )
    return "\n".join(rows)


def _table_lines(table: tuple[str, ...], settings: list[Setting], made: Collection[tuple[str, ...]]) -> Iterator[str]:
    example = settings[0].below_free_key
    mark = "#" if example else ""
    if table:
        yield from _comment(_table_meaning(table)).splitlines()
        yield f"{mark}[{'.'.join(table)}]"
    for setting in settings:
        if not (example and table[0] == "tenants"):
            yield from _comment(f"{setting.meaning} ({setting.type_text})").splitlines()
        live = setting.default is not None or setting.path in made
        yield f"{mark if live else '#'}{setting.path[-1]} = {setting.example}"


def _table_meaning(table: tuple[str, ...]) -> str:
    node = root(Settings)
    for part in table:
        below = child(node, part)
        assert below is not None
        node = below
    return (node.model.__doc__ or "") if node.model is not None else ""


def _comment(text: str) -> str:
    return "\n".join(
        f"# {line}" for part in text.splitlines() for line in textwrap.wrap(part, _WIDTH - 2, break_long_words=False)
    )
