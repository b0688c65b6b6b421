"""On a terminal: tables that fit 80 columns, colours, the progress bar, and questions."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios

from tests.cli.conftest import Deployment
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


# A session of its own, whose terminal this is, so that Ctrl-C reaches it.
_PROGRAM = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from uploadguard.cli import main; main()"


def on_terminal(*args: str, answer: bytes = b"", columns: int = 80) -> tuple[int, str]:
    """Run a command on a pseudo-terminal: its exit code and all that it wrote. ``answer`` is typed at the question."""
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS"}}
    command = [sys.executable, "-c", _PROGRAM, *args]
    options = {"env": {**environment, "TERM": "xterm-256color"}, "start_new_session": True}
    written = b""
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, **options) as process:  # type: ignore[call-overload]
        os.close(side)
        while True:
            # What is typed while the program is just about to read may be lost: type it until there is a reaction.
            while answer and b"[y/N]" in written and not select.select([terminal], [], [], 2)[0]:
                os.write(terminal, answer)
            try:
                block = os.read(terminal, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            written += block
    os.close(terminal)
    return process.returncode, written.decode()


def test_tables_fit_and_are_coloured(deployment: Deployment) -> None:
    name = "a rather long name of a file, as cameras and people give them, with the date.jpg"
    deployment.write(name, (deployment.path / "mirrored.jpg").read_bytes())
    code, written = on_terminal("check", "other.jpg", name, "listed.jpg")
    assert code == Exit.BLOCK
    assert "\x1b[1;31mblock" in written
    lines = _ESCAPE.sub("", written).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert "───" in lines[1]
    assert "perceptual_match" in "".join(lines)
    cut = next(line for line in lines if line.startswith("…"))
    assert name.endswith(cut.split("  ")[0].split(" queue")[0].removeprefix("…"))
    assert len(cut.split(".jpg")[0]) >= 12, "the end of the name is kept"


def test_the_demo_fits(deployment: Deployment) -> None:
    code, written = on_terminal("demo")
    assert code == 0
    table = [line for line in _ESCAPE.sub("", written).replace("\r", "").splitlines() if "queue" in line]
    assert len(table) == 5
    assert max(map(len, table)) <= 80
    assert any(line.startswith("recompressed ") for line in table)


def test_an_import_shows_a_progress_bar_and_then_only_its_result(deployment: Deployment) -> None:
    lines = [b"%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128) for number in range(1, 40_000)]
    deployment.write("many.txt", b"\n".join([b"nonsense", *lines]))
    code, written = on_terminal("lists", "add", "many", "many.txt", "--signal-type", "md5")
    assert code == 0
    assert "reading" in written
    assert re.search(r"compiling\s.*\d%", _ESCAPE.sub("", written)), "the bar goes on after reading"
    assert "/1.3 MB" in _ESCAPE.sub("", written)
    assert "many.txt:1: " in written
    assert "\x1b[2K" in written, "the bar is erased at the end"
    assert "39,999" in written


def test_removing_a_list_asks(deployment: Deployment) -> None:
    code, written = on_terminal("lists", "remove", "test", answer=b"n\n")
    assert code == 0
    assert "Nothing was changed." in written
    assert len(HashSet.open("hashset").lists()) == 1
    code, written = on_terminal("lists", "remove", "test", answer=b"\x03")
    assert code == Exit.INTERRUPTED
    code, written = on_terminal("lists", "remove", "test", answer=b"\x04")
    assert code == Exit.ERROR
    assert len(HashSet.open("hashset").lists()) == 1
    code, written = on_terminal("lists", "remove", "test", answer=b"y\n")
    assert code == 0
    assert HashSet.open("hashset").lists() == ()
