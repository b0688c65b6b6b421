"""How far each way of decoding strays from the reference's hash, over a folder of photos.

Run: ``python -m benchmarks.drift DIR [--json]``. Distances in bits of 256 to ``pdqhash`` on Pillow's RGB pixels:
mode ``exact``; luma at full size, 1/2, 1/4 and 1/8; ``auto``; a thumbnail of 512 px hashed as if it were the picture,
which is what others do; and, for the dihedral variants, the hash of the turned or mirrored pixels themselves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pdqhash
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.pictures import photo_files
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import DecodeOptions
from uploadguard.media.inspect import Limits, inspect_media
from uploadguard.media.source import BytesSource
from uploadguard.signals.pdq import VARIANTS, Pdq

MODES: dict[str, DecodeOptions] = {
    "exact (RGB)": DecodeOptions(pixels="rgb"),
    "auto": DecodeOptions(),
    "luma 1/1": DecodeOptions(jpeg_scale=1),
    "luma 1/2": DecodeOptions(jpeg_scale=2),
    "luma 1/4": DecodeOptions(jpeg_scale=4),
    "luma 1/8": DecodeOptions(jpeg_scale=8),
}
TURNED = {
    "rot90": Image.Transpose.ROTATE_90,
    "rot180": Image.Transpose.ROTATE_180,
    "rot270": Image.Transpose.ROTATE_270,
    "flip_x": Image.Transpose.FLIP_TOP_BOTTOM,
    "flip_y": Image.Transpose.FLIP_LEFT_RIGHT,
    "flip_plus1": Image.Transpose.TRANSPOSE,
    "flip_minus1": Image.Transpose.TRANSVERSE,
}


def _reference(pixels: NDArray[np.uint8]) -> bytes:
    return np.packbits(pdqhash.compute(np.ascontiguousarray(pixels))[0]).tobytes()


def _distance(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def _hashes(data: bytes, options: DecodeOptions) -> dict[str, bytes]:
    """By variant, through the whole inspection: it decodes again where luma leaves too many bits open."""
    result = inspect_media(BytesSource(data), BUILTIN_DECODERS, [Pdq()], options, Limits())
    return {h.variant: h.value for h in result.hashes}


def measure(path: Path) -> dict[str, int]:
    """Distances in bits by mode, and by variant."""
    data = path.read_bytes()
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    reference = _reference(np.asarray(rgb))
    hashes = {mode: _hashes(data, options) for mode, options in MODES.items()}
    found = {mode: _distance(found["original"], reference) for mode, found in hashes.items()}
    thumbnail = rgb.copy()
    thumbnail.thumbnail((512, 512))
    found["thumbnail 512 px"] = _distance(_reference(np.asarray(thumbnail)), reference)
    for name in VARIANTS[1:]:
        turned = _reference(np.asarray(rgb.transpose(TURNED[name])))
        found[f"variant {name}"] = _distance(hashes["exact (RGB)"][name], turned)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    files = photo_files(arguments.folder)
    if not files:
        print(f"no JPEG in {arguments.folder}", file=sys.stderr)
        return 1
    rows = [(path.name, measure(path)) for path in track(files, description="photos", console=Console(stderr=True))]
    if arguments.json:
        for name, found in rows:
            print(json.dumps({"file": name, **found}))
        return 0
    table = Table(
        "way", "at 0 bits", "median", "95 %", "most", title=f"bits of 256 from the reference, {len(rows)} photos"
    )
    for way in rows[0][1]:
        bits = sorted(found[way] for _, found in rows)
        table.add_row(
            way,
            f"{bits.count(0)}",
            f"{statistics.median(bits):g}",
            f"{bits[int(0.95 * (len(bits) - 1))]}",
            f"{bits[-1]}",
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
