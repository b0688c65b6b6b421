"""What all tests share: real photos that packages ship, and pictures made on the spot."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image

from tests.effort import tries

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=tries(60)
)
settings.load_profile("default")

# A shell without job control starts what it puts in the background deaf to Ctrl-C, and programs hand that on to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for each CPU; where single files are named, this one, which has begun before others have started."""
    return 0 if any(".py" in argument for argument in config.args) else len(os.sched_getaffinity(0))


# Only what the wheel itself holds; the package would fetch the rest from the net.
PHOTO_NAMES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "chessboard_GRAY.png", "chessboard_RGB.png",
    "clock_motion.png", "coffee.png", "coins.png", "color.png", "grass.png", "gravel.png", "horse.png",
    "hubble_deep_field.jpg", "ihc.png", "logo.png", "microaneurysms.png", "moon.png", "motorcycle_left.png",
    "page.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
PHOTOS = tuple(
    path
    for name in PHOTO_NAMES
    if (path := Path(skimage.data_dir) / name).is_file()  # type: ignore[attr-defined]
)


def photo(name: str) -> Path:
    """The path of one photo that scikit-image ships."""
    return next(path for path in PHOTOS if path.name == name)


def rgb(path: Path) -> NDArray[np.uint8]:
    """A picture's pixels as Pillow makes them RGB, shape (h, w, 3)."""
    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))


@pytest.fixture(autouse=True)
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting worker processes takes time, so only tests that are about them have them."""
    if request.node.get_closest_marker("sandboxed") is None:
        monkeypatch.setenv("UPLOADGUARD_SANDBOX__ISOLATION", "none")


@pytest.fixture(scope="session")
def photos() -> tuple[Path, ...]:
    """Real photos and graphics, at least a dozen."""
    assert len(PHOTOS) >= 12
    return PHOTOS
