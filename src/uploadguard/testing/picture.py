"""The harmless test picture: what the EICAR file is to virus scanners, for upload checks.

A drawn landscape that says on itself what it is. Its hashes stand in the list ``uploadguard-test``
(:mod:`uploadguard.testing.testlist`), so that an operator can upload it and see that the check, the policy, the queue
and the alarms all work, without ever touching abuse material.

The file itself is shipped, because JPEG bytes differ between encoders and its digests must not. The code that drew it
stands here too, so that anybody can see what it is; a test holds the two together.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

from uploadguard.testing._drawing import Random, layer, noise, smooth, to_image
from uploadguard.testing.media import encode, make_photo

if TYPE_CHECKING:
    from PIL import Image

    from uploadguard.testing._drawing import Plane

__all__ = ["VARIANTS", "changed_bytes", "draw_picture", "picture_bytes", "unrelated_picture", "variant_bytes"]

VARIANTS: Mapping[str, str] = MappingProxyType(
    {
        "recompressed": "JPEG of quality 40",
        "resized": "half the width and height",
        "mirrored": "left and right exchanged",
        "rotated": "turned a quarter counter-clockwise",
        "png": "the same pixels as PNG",
    }
)
"""What :func:`variant_bytes` makes. PDQ finds all of them, and no digest does."""

_WIDTH, _HEIGHT = 1200, 900
_BAND = 96
_INK = (255, 244, 214)
_GROUND = (18, 20, 31)


@functools.cache
def picture_bytes() -> bytes:
    """The test picture: a JPEG of 1200 x 900 px, the same bytes everywhere."""
    return resources.files("uploadguard.testing").joinpath("data", "testpicture.jpg").read_bytes()


@functools.cache
def variant_bytes(name: str) -> bytes:
    """The test picture changed as a re-upload would be; ``name`` is one of :data:`VARIANTS`. Raises ``ValueError``.

    The bytes depend on Pillow's version, so match them by PDQ, not by digests.
    """
    from PIL import Image

    return changed_bytes(Image.open(io.BytesIO(picture_bytes()), formats=["JPEG"]), name)


def changed_bytes(image: Image.Image, name: str) -> bytes:
    """A picture changed so; ``image`` is of a mode that JPEG takes. Raises ``ValueError``."""
    from PIL import Image

    if name not in VARIANTS:
        raise ValueError(f"no such variant: {name!r}; choose {', '.join(VARIANTS)}")
    if name == "recompressed":
        return encode(image, quality=40)
    if name == "resized":
        half = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
        return encode(half, quality=85)
    if name == "mirrored":
        return encode(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=85)
    if name == "rotated":
        return encode(image.transpose(Image.Transpose.ROTATE_90), quality=85)
    return encode(image, "PNG")


@functools.cache
def unrelated_picture() -> bytes:
    """A JPEG, drawn too and labelled, that neither the test list nor any other holds: to see that it is let through."""
    image = make_photo(_WIDTH, _HEIGHT, seed=2024)
    _write(image, "uploadguard test picture, matches nothing", (40, 40), scale=3)
    return encode(image, quality=85)


def draw_picture() -> Image.Image:
    """Draw the test picture: hills under a cloudy evening sky, a striped tower, and a line that says what it is."""
    import numpy as np

    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float64)
    canvas = _sky(x, y)
    for index, (base, relief, colour) in enumerate(
        (
            (470.0, 260.0, (0.42, 0.45, 0.60)),
            (600.0, 240.0, (0.24, 0.34, 0.36)),
            (720.0, 200.0, (0.10, 0.17, 0.12)),
        )
    ):
        _hill(canvas, y, base, relief, colour, seed=41 + index)
        if index == 1:
            _tower(canvas, x, y)
    _field(canvas, x, y)
    layer(canvas, (y >= _HEIGHT - _BAND).astype(np.float64), np.array(_GROUND) / 255)
    image = to_image(canvas)
    _write(image, "uploadguard test picture, harmless", (36, _HEIGHT - _BAND + 8), scale=4)
    _write(image, "a drawing; upload checks report it on purpose", (36, _HEIGHT - _BAND + 58), scale=2)
    return image


def _sky(x: Plane, y: Plane) -> Plane:
    import numpy as np

    height = (y / 560.0)[:, :, None]
    canvas = np.array([0.10, 0.22, 0.48]) * (1 - height) + np.array([0.98, 0.70, 0.42]) * height
    clouds = noise(_WIDTH, _HEIGHT, 7, cells=3, octaves=5, fall=0.5)
    layer(canvas, smooth((clouds - 0.42) * 4.5) * 0.85, (0.93, 0.90, 0.88))
    layer(canvas, smooth((0.44 - clouds) * 4.0) * 0.55, (0.12, 0.13, 0.24))
    distance = np.hypot(x - 905.0, y - 205.0)
    layer(canvas, 0.8 * smooth(1.0 - distance / 230.0), (1.0, 0.86, 0.55))
    layer(canvas, smooth((72.0 - distance) / 3.0), (1.0, 0.97, 0.86))
    return canvas


def _hill(
    canvas: Plane, y: Plane, base: float, relief: float, colour: tuple[float, float, float], *, seed: int
) -> None:
    import numpy as np

    ridge = base + relief * (noise(_WIDTH, 1, seed, cells=4, octaves=5, fall=0.42)[0] - 0.5)
    texture = noise(_WIDTH, _HEIGHT, seed + 10, cells=10, octaves=3, fall=0.6)
    lit = np.clip(0.45 + 1.1 * texture + 0.35 * (y - ridge) / 300.0, 0.0, 2.0)[:, :, None] * np.array(colour)
    layer(canvas, smooth((y - ridge) / 3.0), lit)


def _tower(canvas: Plane, x: Plane, y: Plane) -> None:
    """Red and white stripes, narrower towards the top, with a flat roof: lit from the right."""
    import numpy as np

    half_width = 34.0 + (y - 190.0) * 0.075
    inside = smooth((half_width - np.abs(x - 268.0)) / 2.0) * smooth((y - 190.0) / 2.0) * smooth((684.0 - y) / 2.0)
    red = smooth((np.sin((y - 190.0) * np.pi / 55.0) * 12.0 + 1.0) / 2.0)[:, :, None]
    light = np.clip(0.72 + (x - 268.0) / 110.0, 0.25, 1.05)[:, :, None]
    layer(canvas, inside, light * (red * np.array([0.75, 0.12, 0.10]) + (1 - red) * np.array([0.97, 0.95, 0.90])))
    roof = smooth((58.0 - np.abs(x - 268.0)) / 2.0) * smooth((y - 168.0) / 2.0) * smooth((192.0 - y) / 2.0)
    layer(canvas, roof, (0.15, 0.15, 0.18))


def _field(canvas: Plane, x: Plane, y: Plane) -> None:
    """Boulders on the near slope, each lit from the upper right."""
    import numpy as np

    random = Random(99)
    for _ in range(9):
        centre_x, centre_y = random.between(420, 1160), random.between(640, 790)
        radius = random.between(18, 62)
        across, down = (x - centre_x) / radius, (y - centre_y) / (radius * 0.7)
        light = np.clip(0.5 + 0.4 * across - 0.45 * down, 0.06, 1.0)[:, :, None]
        layer(canvas, smooth((1.0 - np.hypot(across, down)) * radius / 2.5), light * np.array([0.86, 0.82, 0.74]))


def _write(image: Image.Image, text: str, place: tuple[int, int], *, scale: int) -> None:
    """Write with Pillow's built-in bitmap font, each dot ``scale`` px wide: the same on every machine."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("1", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=1, font=font)
    mask = mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST)
    across, down = place
    ground = (across - 12, down - 6, across + mask.width + 12, down + mask.height + 6)
    ImageDraw.Draw(image).rectangle(ground, fill=_GROUND)
    image.paste(_INK, place, mask)
