"""What a worker is started with: decoders and signal types of installed plugins by name, of others by pickle."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tests.test_guard import add_test_list
from uploadguard import Guard
from uploadguard.config import Settings
from uploadguard.hashing import inspection_job
from uploadguard.hashset import HashSet
from uploadguard.media.heif import HeifDecoder
from uploadguard.plugins import Plugins
from uploadguard.sandbox.parts import dump_job, load_job

PLUGIN = """
    import threading
    from uploadguard import hookimpl
    from uploadguard.media.base import Pixels

    class Grey:
        name = "grey"
        media_types = frozenset({"image/x-grey"})
        width = height = 64
        frames_total = orientation = 1
        sequential = False

        def __init__(self):
            self.lock = threading.Lock()  # which cannot be pickled

        def sniff(self, head):
            return "image/x-grey" if head.startswith(b"grey") else None

        def open(self, data, media_type, options):
            return self

        def frames(self, indices):
            import numpy as np
            yield Pixels(np.arange(64 * 64, dtype=np.uint16).astype(np.uint8).reshape(64, 64), 64, 64)

        def close(self):
            pass

    class Mean:
        name = "mean"
        length_bytes = 8
        max_distance_bits = 0
        min_quality = 0
        pixels = "luma"

        def parse(self, text):
            return bytes.fromhex(text)

        def format(self, value):
            return value.hex()

        def hash_pixels(self, pixels):
            from uploadguard.signals.base import PixelHash
            return PixelHash(bytes([int(pixels.array.mean())]) * 8)

    @hookimpl
    def uploadguard_decoders():
        return [Grey()]

    @hookimpl
    def uploadguard_signal_types():
        return [Mean()]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plugin as if it were installed."""
    (tmp_path / "grey_plugin.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "grey_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grey-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uploadguard]\ngrey = grey_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "grey_plugin", raising=False)
    return "grey"


def settings(plugin: str, **more: object) -> Settings:
    return Settings.load(plugins=[plugin], signals={"enabled": ["md5", "pdq", "mean"]}, **more)


def test_an_installed_plugins_parts_go_by_name(installed: str) -> None:
    chosen = settings(installed)
    plugins = Plugins(chosen)
    job = inspection_job(chosen, plugins)
    payload = dump_job(job, plugins, {"more": 1})
    loaded, values = load_job(payload)
    assert values == {"more": 1}
    assert [decoder.name for decoder in loaded.decoders] == [decoder.name for decoder in job.decoders]
    assert loaded.decoders[0].name == "grey"
    assert isinstance(loaded.decoders[-1], HeifDecoder)
    assert [signal.name for signal in loaded.signals] == ["pdq", "mean"]
    assert (loaded.options, loaded.limits) == (job.options, job.limits)
    assert b"min_quality" in payload  # that of PDQ as configured, for it is pickled


@pytest.mark.sandboxed
def test_an_installed_plugin_works_in_workers(installed: str, tmp_path: Path) -> None:
    HashSet.create(tmp_path / "set")
    add_test_list(tmp_path / "set")
    with Guard(settings(installed, hashset={"path": tmp_path / "set"}, sandbox={"deadline_s": 30.0})) as guard:
        decision = guard.check(b"grey")
    assert decision.media.decoder == "grey"
    assert {item.signal_type for item in decision.hashes} == {"md5", "pdq", "mean"}


def test_parts_of_nobody_are_a_mistake() -> None:
    with pytest.raises(KeyError):
        Plugins(Settings()).origin(object())
