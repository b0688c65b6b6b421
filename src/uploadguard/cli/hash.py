"""``uploadguard hash``: the hashes of files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import Exit, highest
from uploadguard.cli.output import STDIN, echo, file_fields, print_json, report_error, safe_text
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard.hashing import HashedMedia

__all__ = ["check_names", "hash_files"]


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The files to work on. Standard input can be read only once."""
    if names.count(STDIN) > 1:
        raise click.UsageError("'-' can be given only once")
    return names


@click.command("hash")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--pdq", type=click.Choice(["auto", "exact"]), help="How to compute PDQ; otherwise as configured.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def hash_files(state: State, files: tuple[str, ...], pdq: str | None, as_json: bool) -> Exit:
    """Print the hashes of files; - is standard input.

    Needs no configuration and no hash set. Ends with 10 if a file could not be hashed in full.
    """
    check_names(files)
    from uploadguard.errors import MediaReadError
    from uploadguard.hashing import MediaHasher

    overrides: Mapping[str, Any] = {"signals": {"pdq": {"mode": pdq}}} if pdq is not None else {}
    hasher = MediaHasher(state.load_settings(required=False, **overrides))
    codes = set()
    for name in files:
        try:
            hashed = hasher.hash(name if name != STDIN else sys.stdin.buffer)
        except MediaReadError as error:
            report_error(str(error))
            if as_json:
                print_json({**file_fields(name), "error": error.reason})
            codes.add(Exit.ERROR)
            continue
        codes.add(Exit.OK if hashed.complete else Exit.NOT_SCANNED)
        if as_json:
            print_json({**file_fields(name), **hashed.to_dict()})
        else:
            _print(name, hashed)
    return highest(codes)


def _print(name: str, hashed: HashedMedia) -> None:
    media = hashed.media
    facts = [f"{media.size_bytes:,} bytes"]
    if media.media_type is not None:
        facts.append(media.media_type)
    if media.width is not None:
        facts.append(f"{media.width} x {media.height}")
    if media.frames_total > 1:
        facts.append(f"{media.frames_hashed} of {media.frames_total} frames hashed")
    lines = [f"{safe_text(name)}: {', '.join(facts)}"]
    frame, width = 0, max((len(item.signal_type) for item in hashed.hashes), default=0)
    for item in hashed.hashes:
        if item.variant != "original":
            continue
        if item.frame != frame:
            frame = item.frame
            lines.append(f"  frame {frame}")
        lines.append(f"  {item.signal_type:<{width}} {item.value.hex()}")
        if item.quality is not None:
            lines.append(f"  {'':<{width}} quality {item.quality}")
    lines += [f"  {failure.code.value}: {failure.detail}" for failure in hashed.failures]
    echo("\n".join(lines))
