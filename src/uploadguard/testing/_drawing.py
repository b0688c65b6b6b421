"""Procedural texture that is the same on every machine and with every version of numpy.

numpy may change the streams of its generators, so the random numbers are SplitMix64 (Steele, Lea, Flood: "Fast
splittable pseudorandom number generators", 2014) in integer arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Plane = NDArray[np.float64]

__all__ = ["Random", "layer", "noise", "smooth", "to_image"]

_GOLDEN = 0x9E3779B97F4A7C15


class Random:
    """A stream of uniform numbers in [0, 1), fixed by ``seed`` (any int of 64 bits)."""

    def __init__(self, seed: int) -> None:
        self._state = seed % (1 << 64)

    def array(self, *shape: int) -> Plane:
        """The next numbers of the stream, float64."""
        import numpy as np

        count = int(np.prod(shape))
        steps = np.arange(1, count + 1, dtype=np.uint64)
        # Wrapping around 64 bits is part of the algorithm; arrays do it without a warning.
        z = np.uint64(self._state) + steps * np.uint64(_GOLDEN)
        self._state = (self._state + count * _GOLDEN) % (1 << 64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        unit: Plane = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return unit.reshape(shape)

    def between(self, low: float, high: float) -> float:
        """The next number, in [low, high)."""
        return low + (high - low) * float(self.array(1)[0])


def smooth(t: Plane) -> Plane:
    """0 below 0, 1 above 1, and a smooth step in between."""
    import numpy as np

    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def noise(width: int, height: int, seed: int, *, cells: int = 3, octaves: int = 6, fall: float = 0.5) -> Plane:
    """Value noise, shape (height, width), within 0 to 1.

    The first octave has ``cells`` cells along the longer side; each further one has twice as many and ``fall`` times
    the strength.
    """
    import numpy as np

    random = Random(seed)
    total = np.zeros((height, width))
    strength, sum_of_strengths = 1.0, 0.0
    for octave in range(octaves):
        cell_px = max(width, height) / (cells << octave)
        y, x = np.arange(height) / cell_px, np.arange(width) / cell_px
        row, column = y.astype(np.intp), x.astype(np.intp)
        lattice = random.array(int(row[-1]) + 2, int(column[-1]) + 2)
        down, right = smooth(y - row)[:, None], smooth(x - column)[None, :]
        across = lattice[:, column] * (1 - right) + lattice[:, column + 1] * right
        total += strength * (across[row] * (1 - down) + across[row + 1] * down)
        sum_of_strengths += strength
        strength *= fall
    return total / sum_of_strengths


def layer(canvas: Plane, cover: Plane, colour: Plane | tuple[float, float, float]) -> None:
    """Paint ``colour``, (3,) or (h, w, 3), over ``canvas``, (h, w, 3), where ``cover``, (h, w), is 1; all 0 to 1."""
    import numpy as np

    opacity = cover[:, :, None]
    canvas *= 1.0 - opacity
    canvas += opacity * np.asarray(colour)


def to_image(canvas: Plane) -> Image.Image:
    """An RGB picture of a canvas of shape (h, w, 3), 0 to 1."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.round(np.clip(canvas, 0.0, 1.0) * 255.0).astype(np.uint8))
