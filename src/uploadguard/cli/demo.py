"""``uploadguard demo`` and ``uploadguard testpicture``: to see the whole path at work, with harmless pictures."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uploadguard.cli.check import best_match
from uploadguard.cli.exits import Exit
from uploadguard.cli.output import (
    STDIN,
    echo,
    new_table,
    print_json,
    print_table,
    report_error,
    report_warning,
    verdict_style,
)

if TYPE_CHECKING:
    from uploadguard.guard import Guard
    from uploadguard.hashset import HashSet
    from uploadguard.models import Decision, Match
    from uploadguard.plugins import Plugins

__all__ = ["VARIANTS", "demo", "testpicture"]

VARIANTS = ("recompressed", "resized", "mirrored", "rotated", "png")
"""As :data:`uploadguard.testing.picture.VARIANTS`, which would be slow to import for the help."""

_PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg"}
)
_UNRELATED = "unrelated"
_LIST = "demo"
_WORDS = {"block": "refused", "queue": "held back for a person", "not_scanned": "not scanned", "allow": "let through"}
_NEXT = """
Next:
  uploadguard init DIR                a configuration and an empty hash set
  uploadguard lists add NAME FILE     import a hash list, in DIR
  uploadguard check PICTURE           check an upload"""


@click.command()
@click.argument("picture", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each upload.")
def demo(picture: Path | None, as_json: bool) -> Exit:
    """Check a listed picture, changed forms of it, and another.

    The listed picture is a harmless drawing, or PICTURE. All is done in a temporary directory that is removed
    afterwards; no configuration is read. Ends with 1 if the drawing or the unrelated picture gets a wrong verdict.
    """
    import tempfile

    from uploadguard.config import HashsetSettings, Settings
    from uploadguard.guard import Guard
    from uploadguard.hashset import HashSet
    from uploadguard.plugins import Plugins

    with tempfile.TemporaryDirectory(prefix="uploadguard-demo-") as directory:
        settings = Settings(hashset=HashsetSettings(path=Path(directory, "hashset")))
        hashset = HashSet.create(settings.hashset.path)
        original = _import(hashset, Plugins(settings), Path(directory), picture)
        with Guard(settings) as guard:
            decisions = list(_check_all(guard, original, shown=picture.name if picture is not None else "test picture"))
    if as_json:
        for name, decision in decisions:
            print_json({"upload": name, **decision.to_dict()})
    else:
        _print(decisions)
    problem = _problem(decisions, own=picture is not None)
    if problem is not None:
        report_error(problem)
    return Exit.OK if problem is None else Exit.ERROR


def _import(hashset: HashSet, plugins: Plugins, directory: Path, picture: Path | None) -> bytes:
    """Import the test list, or one made of the picture's own hashes. Returns the listed picture."""
    from uploadguard.errors import MediaReadError
    from uploadguard.importing import import_list
    from uploadguard.testing.picture import picture_bytes
    from uploadguard.testing.testlist import list_bytes

    if picture is None:
        path = directory / "test-list.csv"
        path.write_bytes(list_bytes())
        import_list(hashset, _LIST, path, plugins)
        return picture_bytes()

    from uploadguard.hashing import hash_media
    from uploadguard.lists import ListEntry
    from uploadguard.signals.base import lookup_kinds

    hashed = hash_media(picture)
    if hashed.media.frames_hashed == 0:
        why = "; ".join(failure.detail for failure in hashed.failures)
        raise MediaReadError(f"not a picture to show anything with: {why}", path=picture)
    own = [item for item in hashed.hashes if item.variant == "original" and item.frame == 0]
    entry = ListEntry("picture", tuple((item.signal_type, item.value) for item in own), category="demo", line=1)
    hashset.add_list(_LIST, [entry], lookup_kinds(plugins.signal_types.values()), source="demo")
    return picture.read_bytes()


def _check_all(guard: Guard, original: bytes, *, shown: str) -> Iterator[tuple[str, Decision]]:
    """The uploads by name, with their decisions."""
    from PIL import Image

    from uploadguard.testing.picture import changed_bytes, unrelated_picture

    guard.prewarm()
    guard.check(original)  # what a decoder does once only is not to stand in the times
    yield shown, guard.check(original)
    try:
        image = Image.open(io.BytesIO(original)).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        report_warning("Pillow does not open this picture, so there are no changed forms of it")
    else:
        for name in VARIANTS:
            yield name, guard.check(changed_bytes(image, name))
    yield _UNRELATED, guard.check(unrelated_picture())


def _print(decisions: list[tuple[str, Decision]]) -> None:
    stages = {
        "digest": ("digests",),
        "decode": ("open", "decode"),
        "pdq": ("pdq",),
        "match": ("match_digests", "match"),
        "total": ("total",),
    }
    rows = []
    for name, decision in decisions:
        match = decision.matches[0] if decision.matches else None
        rows.append(
            (
                name,
                decision.verdict.label,
                _match_text(match) if match is not None else "none",
                match.variant if match is not None and not match.exact else "",
                *(f"{sum(decision.timings_ms.get(part, 0.0) for part in parts):.1f}" for parts in stages.values()),
            )
        )
    headings = ("Upload", "Verdict", "Match", "Variant")
    table = new_table(*headings, *stages, right=stages, fold=["Upload"])
    echo("Verdicts, the closest match with its distance in bits, and milliseconds by stage:\n")
    print_table(table, rows, {1: verdict_style()})
    echo(f"\n{_headline(decisions)}")
    for why in _failures(decisions):
        echo(why)
    echo(_NEXT)


def _match_text(match: Match) -> str:
    return match.signal_type if match.exact else f"{match.signal_type} {match.distance_bits}"


def _headline(decisions: list[tuple[str, Decision]]) -> str:
    """What would have happened to the uploads."""
    counts = Counter(decision.verdict.label for name, decision in decisions if name != _UNRELATED)
    listed = ", ".join(f"{counts[label]} {word}" for label, word in _WORDS.items() if counts[label])
    reports = sum(decision.report_due for _, decision in decisions)
    unrelated = _WORDS[decisions[-1][1].verdict.label]
    return (
        f"Of {counts.total()} uploads of the listed picture: {listed}; {reports} to be reported.\n"
        f"The unrelated picture: {unrelated}."
    )


def _failures(decisions: list[tuple[str, Decision]]) -> Iterator[str]:
    """What could not be inspected in full, with the reason: why a picture is no good to show anything with."""
    uploads: dict[str, list[str]] = {}
    for name, decision in decisions:
        for text in dict.fromkeys(f"{failure.code.value}: {failure.detail}" for failure in decision.failures):
            uploads.setdefault(text, []).append(name)
    if uploads:
        yield "\nNot inspected in full, so that only the very same file can be found again:"
    for text, names in uploads.items():
        yield f"  {text} ({', '.join(names)})"


def _problem(decisions: list[tuple[str, Decision]], *, own: bool) -> str | None:
    """What went otherwise than it must. How well a picture of one's own is found, depends on the picture."""
    from uploadguard.models import Verdict

    (first, listed), *changed = decisions
    if listed.verdict is not Verdict.BLOCK:
        return f"{first}: {listed.verdict.label} instead of block"
    for name, decision in changed:
        expected = Verdict.ALLOW if name == _UNRELATED else Verdict.QUEUE
        if decision.verdict is not expected and not own:
            return (
                f"{name}: {decision.verdict.label} instead of {expected.label} ({best_match(decision) or 'no match'})"
            )
    return None


@click.command()
@click.argument("out", metavar="OUT.jpg", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--variant", type=click.Choice([*VARIANTS, _UNRELATED]), help="A changed form, or an unrelated picture.")
def testpicture(out: Path, variant: str | None) -> None:
    """Write the harmless test picture; - is standard output.

    Upload it to a deployment whose configuration has hashset.test_list on. Overwrites nothing.
    """
    from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

    right = (".png",) if variant == "png" else (".jpg", ".jpeg")
    if out.suffix.lower() in _PICTURE_SUFFIXES.difference(right):
        kind = "PNG" if variant == "png" else "JPEG"
        raise click.UsageError(f"what is written is a {kind} file: name it {out.with_suffix(right[0]).name}")
    if variant is None:
        data = picture_bytes()
    else:
        data = unrelated_picture() if variant == _UNRELATED else variant_bytes(variant)
    if str(out) == STDIN:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with out.open("xb") as file:
            file.write(data)
    except OSError as error:
        if error.filename is not None:  # it could not even be made
            raise
        out.unlink()
        raise OSError(error.errno, error.strerror, str(out)) from error
    echo(f"{out}: {len(data):,} bytes")
