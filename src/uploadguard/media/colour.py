"""Pictures that a colour-managed viewer shows far from their samples: odd ICC profiles and tone curves.

PDQ and its like see light and shade, and do not mind the mild curves of real colour spaces. A profile is judged by what
it makes of a few hundred colours: where the brightness that comes out no longer follows the brightness that went in,
the profile is part of the picture.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from typing import TYPE_CHECKING

from uploadguard.media.structure.base import Structure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import ImageCms

__all__ = ["is_odd_profile", "tone_table", "with_profile"]

MAX_PROFILE_BYTES = 4_194_304
_GRID_STEPS = {1: 64, 3: 6, 4: 4}
_MAX_MISFIT = {1: 0.3, 3: 0.3, 4: 0.6}
"""By samples of a pixel: what is left of the brightness after the best straight line (root mean square), as a share of
its own spread. sRGB has 0.01, Display P3 0.15, Adobe RGB 0.18, ProPhoto 0.29, linear light 0.34. Four inks may differ
more, since without a profile they are turned to light by a simple rule."""

_MAX_STEP = 24
"""From one grey to the next of 256: more opens up differences that nobody sees in the samples."""

_MAX_FALL = 2
_TABLE_TAGS = (b"A2B0", b"A2B1", b"A2B2")

_MILD_EXPONENTS = (0.75, 1.34)
_LINEAR, _PQ, _HLG = 8, 16, 18
_LUMA = (0.299, 0.587, 0.114)
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}

_judged: dict[bytes, bool] = {}
_judging = threading.Lock()
_MAX_JUDGED = 1024


def is_odd_profile(profile: bytes) -> bool:
    """Whether a viewer that follows this ICC profile shows something else than the samples.

    False for what viewers ignore: damaged profiles, and those of other spaces. Remembered by the profile's digest.
    """
    if not profile:
        return False
    key = hashlib.sha256(profile).digest()
    known = _judged.get(key)
    if known is None:
        known = _judge(profile)
        with _judging:
            if len(_judged) >= _MAX_JUDGED:
                _judged.clear()
            _judged[key] = known
    return known


def _judge(profile: bytes) -> bool:
    import numpy as np
    from PIL import Image

    opened = _open(profile)
    if opened is None:
        return False
    mode, _ = opened
    planes = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    if planes < 4 and any(tag in profile[128:1024] for tag in _TABLE_TAGS):
        return True  # a table has more corners than can be tried
    if planes < 4:
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        greys = _applied(ramp if planes == 1 else ramp.convert("RGB"), profile)
        if greys is not None:
            steps = np.diff(greys[0] @ np.array(_LUMA))
            if steps.min() < -_MAX_FALL or steps.max() > _MAX_STEP:
                return True
    axes = np.meshgrid(*[np.linspace(0, 255, _GRID_STEPS[planes]).astype(np.uint8)] * planes, indexing="ij")
    samples = np.stack([axis.ravel() for axis in axes], axis=-1)[None]
    image = Image.fromarray(samples[:, :, 0] if planes == 1 else samples, mode)
    after = _applied(image, profile)
    if after is None:
        return False
    before = np.asarray(image.convert("RGB")) @ np.array(_LUMA)
    shown = after @ np.array(_LUMA)
    return _misfit(before.ravel(), shown.ravel()) > _MAX_MISFIT[planes]


def _misfit(before: NDArray[np.float64], shown: NDArray[np.float64]) -> float:
    """How much of the shown brightness the stored one does not explain; 1 for a profile that shows nothing at all."""
    import numpy as np

    if shown.std() < 1.0:
        return 1.0
    slope, offset = np.polyfit(before, shown, 1)
    if slope <= 0:
        return 1.0
    return float((shown - slope * before - offset).std() / max(shown.std(), 32.0))


def _open(profile: bytes) -> tuple[str, ImageCms.ImageCmsProfile] | None:
    """The Pillow mode of the profile's space, and the profile; None where viewers would not use it."""
    from uploadguard.media.pillow_plugins import ImageCms

    if not 128 <= len(profile) <= MAX_PROFILE_BYTES:
        return None
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES.get(f"{opened.profile.xcolor_space:4}")
    except Exception:  # noqa: BLE001 - Pillow raises anything for a damaged profile; viewers ignore those
        return None
    return (mode, opened) if mode is not None else None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    from uploadguard.media.pillow_plugins import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _applied(image: object, profile: bytes) -> NDArray[np.uint8] | None:
    """The image in sRGB, shape (h, w, 3); None where the profile cannot be applied to it."""
    import numpy as np
    from PIL import Image

    from uploadguard.media.pillow_plugins import ImageCms

    assert isinstance(image, Image.Image)
    opened = _open(profile)
    if opened is None or opened[0] != image.mode:
        return None
    try:
        shown = ImageCms.profileToProfile(image, opened[1], _srgb(), outputMode="RGB")
    except ImageCms.PyCMSError:
        return None
    return np.asarray(shown) if shown is not None else None


def with_profile(pixels: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8] | None:
    """RGB pixels, shape (h, w, 3), as a viewer that follows the profile shows them; None where it cannot."""
    from PIL import Image

    opened = _open(profile)
    if opened is None or opened[0] == "CMYK":
        return None
    image = Image.fromarray(pixels)
    return _applied(image if opened[0] == "RGB" else image.getchannel(0), profile)


def tone_table(structure: Structure) -> bytes | None:
    """The tone curve that the file asks for, as in ``DecodeOptions.tone``; None for a mild one, or none."""
    import numpy as np

    stored = np.linspace(0.0, 1.0, 65_536)
    if structure.transfer == _PQ:
        root = stored ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light = light * 10_000 / 203
    elif structure.transfer == _HLG:
        light = np.where(stored <= 0.5, stored**2 / 3, (np.exp((stored - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = light**1.2 * 1000 / 203
    else:
        gamma = 1.0 if structure.transfer == _LINEAR else structure.gamma
        if gamma is None or not gamma or _MILD_EXPONENTS[0] <= 1 / (2.2 * gamma) <= _MILD_EXPONENTS[1]:
            return None
        light = stored ** (1 / gamma)
    shown = np.clip(light, 0.0, 1.0) ** (1 / 2.2)
    return (shown * 255 + 0.5).astype(np.uint8).tobytes()
