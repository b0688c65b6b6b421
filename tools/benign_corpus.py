"""Makes the benign corpus: hashes of ordinary, widely spread pictures, which no list should match.

    python -m tools.benign_corpus --output src/uploadguard/lists/data/benign.jsonl.gz NAME=PLACE ...

PLACE is a clone of a public repository (its newest commit is read, no work tree is needed) or a directory; NAME is the
project's, as hits show it. Which ones were used is in src/uploadguard/lists/data/README.md. Added to them are the
pictures of scikit-image's wheel, plain colours and gradients made here, the usual one-pixel files, and the empty file.
Only hashes and names are written.
"""

from __future__ import annotations

import argparse
import base64
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from uploadguard.config import Settings
from uploadguard.hashing import MediaHasher
from uploadguard.lists.samples import SampleItem, SampleWriter

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
MOST_OF_A_PROJECT = 320
"""Of projects with more pictures the largest files are taken: photos before icons."""

_COLOURS = {
    "black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "light grey": (204, 204, 204),
    "lighter grey": (238, 238, 238), "dark grey": (51, 51, 51), "red": (255, 0, 0), "green": (0, 128, 0),
    "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "orange": (255, 165, 0),
    "purple": (128, 0, 128), "pink": (255, 192, 203), "cyan": (0, 255, 255), "magenta": (255, 0, 255),
}  # fmt: skip
_SIDES = ((1, 1), (2, 2), (16, 16), (100, 100), (300, 250), (512, 512), (640, 480), (800, 600), (1024, 1024))
_ONE_PIXEL = {
    "transparent GIF, 43 bytes": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "transparent GIF, 42 bytes": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==",
    "spacer GIF": "R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==",
    "beacon GIF": "R0lGODlhAQABAPAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==",
    "smallest GIF": "R0lGODlhAQABAAAAACwAAAAAAQABAAA=",
    "white GIF": "R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=",
    "black GIF": "R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs=",
    "transparent PNG": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=",
    "transparent RGBA PNG": (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    ),
    "transparent PNG, 8 bit": (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
    ),
}


def pictures_in(place: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures of a repository's newest commit, or of a directory, the largest files first."""
    is_repository = (place / "HEAD").is_file() or (place / ".git").exists()
    found: list[tuple[int, str]] = []
    if is_repository:
        for line in filter(None, git(place, "ls-tree", "-r", "-l", "-z", "HEAD").decode().split("\0")):
            facts, name = line.split("\t", 1)
            size = facts.split()[3]
            if size.isdecimal():  # other things than files have none, nor have files that the clone lacks
                found.append((int(size), name))
    else:
        found = [(path.stat().st_size, str(path.relative_to(place))) for path in place.rglob("*") if path.is_file()]
    chosen = sorted((-size, name) for size, name in found if name.lower().endswith(SUFFIXES))
    for _, name in chosen:
        if is_repository:
            yield name, git(place, "cat-file", "blob", f"HEAD:{name}")
        else:
            yield name, (place / name).read_bytes()


def git(place: Path, *arguments: str) -> bytes:
    """What git says of the repository."""
    command = ["git", "-C", str(place), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603


def made_up() -> Iterator[tuple[str, bytes]]:
    """Files that hold next to nothing: empty ones, one pixel, one colour, a gradient."""
    yield "empty file", b""
    yield "a line feed", b"\n"
    yield "a zero byte", b"\0"
    for name, text in _ONE_PIXEL.items():
        yield name, base64.b64decode(text)
    for name, colour in _COLOURS.items():
        for side in _SIDES:
            for kind in ("PNG", "JPEG"):
                yield f"{name} {side[0]}x{side[1]} {kind}", encoded(Image.new("RGB", side, colour), kind)
    yield "transparent 100x100 PNG", encoded(Image.new("RGBA", (100, 100)), "PNG")
    for width, height in _SIDES[3:]:
        x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        shapes = {"left to right": x, "top to bottom": y, "diagonal": (x + y) / 2}
        shapes["round"] = np.hypot(x - 127.5, y - 127.5) * 255 / np.hypot(127.5, 127.5)
        for name, values in shapes.items():
            for word, shades in (("", values), (" reversed", 255 - values)):
                picture = Image.fromarray(shades.astype(np.uint8))
                for kind in ("PNG", "JPEG"):
                    yield f"gradient {name}{word} {width}x{height} {kind}", encoded(picture, kind)
    for width, height in _SIDES[3:]:
        checks = (np.indices((height, width)) // 16).sum(axis=0) % 2 * 255
        yield f"chessboard {width}x{height} PNG", encoded(Image.fromarray(checks.astype(np.uint8)), "PNG")


def encoded(picture: Image.Image, kind: str) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def main() -> None:
    """Write the corpus, and say how many pictures each project gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("places", nargs="*", metavar="NAME=PLACE")
    arguments = parser.parse_args()
    sources: list[tuple[str, Iterator[tuple[str, bytes]]]] = [("made up", made_up())]
    sources.append(("scikit-image", pictures_in(Path(skimage.data_dir))))  # type: ignore[attr-defined]
    for place in arguments.places:
        name, _, path = place.partition("=")
        sources.append((name, pictures_in(Path(path))))
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    items: list[SampleItem] = []
    with MediaHasher(Settings.load(None, signals={"pdq": {"mode": "exact"}})) as hasher:
        for project, pictures in sources:
            for name, data in pictures:
                if project != "made up" and counts[project] == MOST_OF_A_PROJECT:
                    break
                hashed = hasher.hash(data)
                item = SampleItem.of(hashed, f"{project}: {name}", signal_types={"md5", "sha1", "sha256", "pdq"})
                key = next(one.value for one in item.hashes if one.signal_type == "sha256")
                if key not in seen:
                    seen.add(key)
                    counts[project] += 1
                    items.append(item)
    with SampleWriter(arguments.output, mode=0o644) as writer:
        for item in sorted(items, key=lambda item: item.label):
            writer.add(item)
    for project, count in counts.items():
        sys.stdout.write(f"{count:5} {project}\n")
    sys.stdout.write(f"{len(items):5} in all, {arguments.output.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
