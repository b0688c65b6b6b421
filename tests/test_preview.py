"""Previews: what reviewers see, and that nothing else of a file comes through."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from scipy.fft import dctn

from tests.conftest import photo, rgb
from uploadguard.config import Settings
from uploadguard.errors import EvidenceError, SandboxError
from uploadguard.preview import MAX_SIDE_PIXELS, make_preview
from uploadguard.sandbox import previews
from uploadguard.sandbox.preview_wire import (
    PreviewFailure,
    PreviewRequest,
    RawPicture,
    failure_answer,
    parse_preview,
    picture_answer,
)
from uploadguard.sandbox.wire import ProtocolError

SECRET = b"the camera's serial number"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(hashset={"path": tmp_path})


@pytest.fixture(
    params=[pytest.param("none", id="here"), pytest.param("sandbox", id="sandboxed", marks=pytest.mark.sandboxed)]
)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that decode in this process, or in a worker."""
    return Settings.load(hashset={"path": tmp_path}, sandbox={"isolation": request.param})


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation(*colours: tuple[int, int, int]) -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in colours]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def mean_colour(png: bytes) -> list[int]:
    return [round(float(one)) for one in np.asarray(opened(png).convert("RGB")).reshape(-1, 3).mean(axis=0)]


def test_the_usual_preview_is_grey_and_of_the_pictures_shape(either: Settings) -> None:
    image = opened(make_preview(photo("coffee.png").read_bytes(), either))
    assert (image.mode, image.size) == ("L", (512, 341))
    assert image.info == {}


def test_the_clear_one_is_the_picture_made_small(either: Settings) -> None:
    png = make_preview(photo("coffee.png").read_bytes(), either, clear=True)
    image = opened(png)
    assert (image.mode, image.size) == ("RGB", (512, 341))
    expected = Image.fromarray(rgb(photo("coffee.png"))).resize((512, 341), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_a_small_picture_is_not_enlarged_where_it_is_clear(settings: Settings) -> None:
    assert opened(make_preview(encoded(Image.new("RGB", (30, 20)), "PNG"), settings, clear=True)).size == (30, 20)
    assert opened(make_preview(encoded(Image.new("RGB", (1, 1)), "PNG"), settings)).size == (512, 512)
    assert opened(make_preview(encoded(Image.new("L", (3000, 1)), "PNG"), settings, clear=True)).size == (512, 1)


def share_finer(grey: NDArray[np.uint8], waves: int) -> float:
    """The share of a square picture's contrast that lies in more than so many waves from side to side."""
    power = dctn(grey.astype(float) - grey.mean()) ** 2
    halves = np.arange(len(grey))
    fine = np.maximum(halves[:, None], halves[None, :]) > 2 * waves
    return float(power[fine].sum() / power.sum())


def test_nothing_finer_than_a_few_cells_is_left_of_a_face(settings: Settings) -> None:
    face = Image.fromarray(rgb(photo("astronaut.png"))[60:200, 155:295])
    clear = np.asarray(face.resize((512, 512)).convert("L"))
    blurred = np.asarray(opened(make_preview(encoded(face, "PNG"), settings)))
    # What tells faces apart takes over eight waves from ear to ear.
    assert share_finer(clear, 6) > 0.02
    assert share_finer(blurred, 6) < 0.001
    # And still it is that picture's light and shade.
    strongly = np.asarray(face.resize((512, 512)).convert("L").filter(ImageFilter.GaussianBlur(50)))
    assert np.corrcoef(blurred.ravel(), strongly.ravel())[0, 1] > 0.9


def test_stripes_finer_than_a_cell_are_gone(settings: Settings) -> None:
    stripes = np.tile(np.array([[0, 255]], np.uint8), (480, 240))
    blurred = np.asarray(opened(make_preview(encoded(Image.fromarray(stripes), "PNG"), settings)))
    assert int(blurred.max()) - int(blurred.min()) <= 2


def test_an_even_picture_stays_even(settings: Settings) -> None:
    for grey in (0, 1, 128, 254, 255):
        blurred = np.asarray(opened(make_preview(encoded(Image.new("L", (300, 200), grey), "PNG"), settings)))
        assert set(blurred.ravel().tolist()) == {grey}


def test_nothing_of_the_files_own_bytes_comes_through(either: Settings) -> None:
    image = Image.fromarray(rgb(photo("chelsea.png")))
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    data = encoded(image, "JPEG", exif=exif, comment=SECRET) + SECRET
    assert data.count(SECRET) == 3
    for clear in (False, True):
        png = make_preview(data, either, clear=clear)
        assert SECRET not in png
        assert opened(png).info == {}
        kinds = chunk_kinds(png)
        assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def chunk_kinds(png: bytes) -> list[bytes]:
    """The chunks' types; their checksums are looked at too."""
    kinds, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == struct.unpack_from(">I", png, at + 8 + length)[0]
        kinds.append(body[:4])
        at += 12 + length
    return kinds


def test_it_stands_upright(settings: Settings) -> None:
    base = np.zeros((40, 60, 3), np.uint8)
    base[:20, :30, 0], base[20:, 30:, 2] = 255, 255
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(base), "PNG", exif=exif)
        turned = Image.open(io.BytesIO(data))
        expected = np.asarray(ImageOps.exif_transpose(turned))
        assert np.array_equal(np.asarray(opened(make_preview(data, settings, clear=True))), expected), orientation


def test_each_frame_of_an_animation(either: Settings) -> None:
    data = animation((255, 0, 0), (0, 255, 0), (0, 0, 255))
    assert mean_colour(make_preview(data, either, clear=True)) == [255, 0, 0]
    assert mean_colour(make_preview(data, either, clear=True, frame=2)) == [0, 0, 255]
    for frame in (3, -1, 10**9):
        with pytest.raises(EvidenceError, match="has no frame"):
            make_preview(data, either, frame=frame)


def test_a_frame_that_is_too_far_is_not_decoded(tmp_path: Path) -> None:
    settings = Settings.load(hashset={"path": tmp_path}, media={"max_decoded_pixels": 200_000})
    data = animation(*[(number, 0, 0) for number in range(9)])
    assert make_preview(data, settings, frame=2)
    with pytest.raises(EvidenceError, match="beyond what may be decoded"):
        make_preview(data, settings, frame=8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_every_format(settings: Settings, kind: str) -> None:
    data = encoded(Image.new("RGB", (64, 48), (200, 100, 50)), kind)
    red, green, blue = mean_colour(make_preview(data, settings, clear=True))
    assert abs(red - 200) + abs(green - 100) + abs(blue - 50) < 12


def test_what_can_be_decoded_of_a_damaged_file(settings: Settings) -> None:
    data = encoded(Image.fromarray(rgb(photo("chelsea.png"))), "JPEG")
    assert opened(make_preview(data[: len(data) // 2], settings, clear=True)).size == (451, 300)


def bomb() -> bytes:
    """A PNG whose header promises 2,500 megapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no known media type"),
        (b"GIF89a", "."),
        (b"\xff\xd8\xff", "."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "seems to be image/svg"),
        (b"%PDF-1.7", "seems to be application/pdf"),
        (bomb(), "50000 x 50000 pixels"),
        (os.urandom(10_000), "."),
    ],
)
def test_what_is_no_picture_gives_an_error(either: Settings, data: bytes, problem: str) -> None:
    with pytest.raises(EvidenceError, match=f"no preview can be made: .*{problem}"):
        make_preview(data, either)


@given(st.data())
def test_broken_files_give_pictures_or_errors(data: st.DataObject) -> None:
    whole = bytearray(animation((255, 0, 0), (0, 255, 0)) if data.draw(st.booleans()) else encoded(NOISE, "JPEG"))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    settings = Settings.load(hashset={"path": Path("nowhere")}, sandbox={"isolation": "none"})
    try:
        image = opened(make_preview(bytes(whole), settings, clear=True))
    except EvidenceError:
        return
    assert max(image.size) <= MAX_SIDE_PIXELS


NOISE = Image.effect_noise((64, 64), 80)


# Workers


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[previews.Worker]:
    """The workers that are started."""
    started: list[previews.Worker] = []

    class Noted(previews.Worker):
        def __init__(self, spec: previews.WorkerSpec) -> None:
            super().__init__(spec)
            started.append(self)

    monkeypatch.setattr(previews, "Worker", Noted)
    return started


@pytest.mark.sandboxed
def test_each_preview_has_a_worker_of_its_own_that_is_gone_afterwards(
    settings: Settings, workers: list[previews.Worker]
) -> None:
    data = photo("coffee.png").read_bytes()
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(2):
        make_preview(data, settings)
    assert len({worker.pid for worker in workers}) == 2
    assert not any(worker.is_alive() for worker in workers)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert all(worker.layers.seccomp for worker in workers)


@pytest.mark.sandboxed
def test_a_worker_that_dies_takes_too_long_or_too_much_is_an_error(
    settings: Settings, workers: list[previews.Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photo("coffee.png").read_bytes()

    def dying(self: previews.Worker, _: bytes) -> int:
        self.kill("test")
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(previews.Worker, "begin", dying)
        with pytest.raises(EvidenceError, match=r"no preview can be made: the worker ended in the middle \(SIGKILL\)"):
            make_preview(data, settings)
    with monkeypatch.context() as patch:
        patch.setattr(previews.Worker, "begin", lambda *_: 1)  # it is never asked, so it never answers
        quick = settings.sandbox.model_copy(update={"deadline_s": 0.2})
        with pytest.raises(EvidenceError, match=r"could not be decoded within 0\.2 s"):
            make_preview(data, settings.model_copy(update={"sandbox": quick}))
        patch.setattr(previews.Worker, "resident_bytes", lambda _: 1 << 40)
        with pytest.raises(EvidenceError, match=r"more memory than sandbox\.max_memory_bytes"):
            make_preview(data, settings)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.sandboxed
def test_a_worker_that_was_taken_over_is_believed_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photo("coffee.png").read_bytes()
    sharp = picture_answer(1, RawPicture(512, 341, 1, bytes(512 * 341)))[4:]
    monkeypatch.setattr(previews.Worker, "message", lambda *_: sharp)
    with pytest.raises(EvidenceError, match="broke its protocol: its picture is not what was asked for"):
        make_preview(data, settings)


@pytest.mark.sandboxed
def test_where_no_worker_can_be_started(settings: Settings) -> None:
    broken = settings.model_copy(update={"sandbox": settings.sandbox.model_copy(update={"python": "/nowhere/python"})})
    with pytest.raises(SandboxError, match="no worker process could be started: No such file"):
        make_preview(b"", broken)
    other = settings.model_copy(update={"sandbox": settings.sandbox.model_copy(update={"python": "/bin/false"})})
    with pytest.raises(SandboxError, match="it ended at once"):
        make_preview(b"", other)


@pytest.mark.sandboxed
def test_only_a_few_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_places", threading.BoundedSemaphore(1))
    monkeypatch.setattr(previews, "START_S", 0.0)
    hurried = settings.model_copy(update={"sandbox": settings.sandbox.model_copy(update={"deadline_s": 0.05})})
    with previews._places, pytest.raises(EvidenceError, match="too many previews"):
        make_preview(b"", hurried)
    child = os.fork()
    if child == 0:
        os._exit(0 if previews._places.acquire(blocking=False) else 1)
    assert os.waitpid(child, 0)[1] == 0


# The wire

BLURRED = PreviewRequest(0, 12, grey=True)
CLEAR = PreviewRequest(0, 512, grey=False)


def test_answers_come_through() -> None:
    grey, colour = RawPicture(12, 3, 1, bytes(36)), RawPicture(2, 512, 3, bytes(3072))
    assert parse_preview(picture_answer(7, grey)[4:], 7, BLURRED) == grey
    assert parse_preview(picture_answer(7, colour)[4:], 7, CLEAR) == colour
    assert parse_preview(failure_answer(7, "no\npicture\x1b \xff" + "x" * 900)[4:], 7, CLEAR) == PreviewFailure(
        "no?picture? ?" + "x" * 487
    )
    largest = ((CLEAR, RawPicture(512, 512, 3, bytes(3 << 18))), (BLURRED, RawPicture(12, 12, 1, bytes(144))))
    for request, answer in largest:
        assert len(picture_answer(7, answer)) - 4 <= request.max_answer_bytes


@pytest.mark.parametrize(
    "answer",
    [
        RawPicture(13, 1, 1, bytes(13)),
        RawPicture(1, 13, 1, bytes(13)),
        RawPicture(0, 1, 1, b""),
        RawPicture(1, 0, 1, b""),
        RawPicture(12, 12, 3, bytes(432)),
        RawPicture(12, 12, 0, b""),
        RawPicture(12, 12, 1, bytes(143)),
        RawPicture(12, 12, 1, bytes(145)),
    ],
)
def test_a_picture_that_is_not_what_was_asked_for_is_refused(answer: RawPicture) -> None:
    with pytest.raises(ProtocolError):
        parse_preview(picture_answer(7, answer)[4:], 7, BLURRED)


def test_an_answer_to_another_request_is_refused() -> None:
    for answer in (picture_answer(8, RawPicture(1, 1, 1, b"x")), failure_answer(8, "no")):
        with pytest.raises(ProtocolError):
            parse_preview(answer[4:], 7, BLURRED)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"P" + struct.pack("<Q", 7) + rest))
def test_no_answer_breaks_the_host(message: bytes) -> None:
    try:
        found = parse_preview(message, 7, BLURRED)
    except ProtocolError:
        return
    if isinstance(found, RawPicture):
        assert len(found.samples) == found.width * found.height
        assert max(found.width, found.height) <= 12
    else:
        assert found.detail.isascii()


def test_the_host_imports_no_decoder() -> None:
    """What makes the PNG needs none of the libraries that read pictures."""
    code = "import sys, uploadguard.preview as p; sys.exit(bool({'PIL', 'pyvips', 'pi_heif'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
