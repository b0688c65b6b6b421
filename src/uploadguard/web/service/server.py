"""The service under uvicorn: on an address or a Unix socket, in one process or several."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from uploadguard.config import Settings, TelemetrySettings
from uploadguard.errors import ConfigError
from uploadguard.guard import Guard
from uploadguard.web.listening import bound_socket, log_config, url_of
from uploadguard.web.service.app import Service, create_service
from uploadguard.web.service.protocol import BoundedH11Protocol
from uploadguard.web.service.tokens import Tokens

__all__ = ["ServiceServer", "service_server", "uvicorn_config"]

_KEEP_ALIVE_S = 75
"""Longer than proxies keep idle connections, so that it is they who close them: never just as a request comes."""

_MAX_HEAD_BYTES = 32 * 1024
_STARTUP_FAILURE = 3


@dataclass(frozen=True, slots=True)
class _MakeService:
    """Makes the service in a worker process, where nothing of the parent's is but this."""

    config: Path | None

    def __call__(self) -> Service:
        return create_service(Settings.load(self.config))


@dataclass(frozen=True, slots=True)
class ServiceServer:
    """A server that is listening and not yet running. ``where`` is its URL, or the socket's path."""

    where: str
    _config: uvicorn.Config
    _socket: socket.socket

    def run(self) -> None:
        """Serve until the process is told to end. Raises :class:`~uploadguard.errors.ConfigError` where it cannot."""
        if self._config.workers > 1:
            Multiprocess(self._config, sockets=[self._socket]).run()
            return
        with _sigterm_ends_quietly():
            try:
                uvicorn.Server(self._config).run(sockets=[self._socket])
            except SystemExit as end:
                if end.code != _STARTUP_FAILURE:
                    raise
                raise ConfigError("the service could not start: its log says why") from end


def uvicorn_config(
    app: Service | _MakeService, settings: Settings, *, workers: int = 1, logging: bool = True, access_log: bool = True
) -> uvicorn.Config:
    """How uvicorn runs the service: its bounds are here."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, _MakeService),
        workers=workers,
        http=BoundedH11Protocol,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        # A last bound, for memory. Uploads beyond serve.max_uploads are told so; these connections get no JSON.
        limit_concurrency=max(256, 4 * settings.serve.max_uploads),
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.serve.shutdown_s,
        log_config=log_config(own_log=True) if logging else None,
        access_log=access_log,
    )


@contextmanager
def service_server(
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    path: Path | None = None,
    workers: int = 1,
    without_token: bool = False,
    access_log: bool = False,
) -> Iterator[ServiceServer]:
    """The server, bound. ``host`` and ``port``, or a Unix socket's ``path``, go before the settings.

    With several ``workers`` each reads the settings anew, from their file and the environment. ``without_token`` allows
    a loopback address without tokens.

    Raises :class:`~uploadguard.errors.ConfigError`, ``HashSetError``, ``LedgerError``, ``PluginError``,
    ``SandboxError``.
    """
    serve = settings.serve
    tokens = Tokens.of(serve)
    path = path or (serve.socket if host is None and port is None else None)
    host, port = host or serve.host, serve.port if port is None else port
    if path is None and not tokens.needed:
        _require_loopback(host, without_token)
    bound = _bound_path(path, serve.socket_mode) if path else bound_socket(host, port, section="serve")
    with bound as listening, _metrics_of_workers(settings, workers), _app(settings, tokens, workers) as app:
        config = uvicorn_config(app, settings, workers=workers, access_log=access_log)
        listening.listen(config.backlog)  # who comes from now on waits, and is not refused
        yield ServiceServer(str(path) if path is not None else url_of(listening, host), config, listening)


@contextmanager
def _app(settings: Settings, tokens: Tokens, workers: int) -> Iterator[Service | _MakeService]:
    if workers > 1:
        # Opened to see that it can be, here where an error can be told; it would count in the workers' metrics.
        Guard(settings.model_copy(update={"telemetry": TelemetrySettings()})).close()
        yield _MakeService(settings.path.absolute() if settings.path is not None else None)
        return
    with Guard(settings) as guard:
        yield create_service(guard, tokens=tokens, close_guard=True)


def _require_loopback(host: str, without_token: bool) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"serve: {host} can be reached by others, so there must be tokens: set serve.token_file or serve.token_env"
        )
    if not without_token:
        raise ConfigError(
            "serve: there are no tokens, so every program on this machine could use the service: set serve.token_file "
            "or serve.token_env, listen on a Unix socket (serve.socket), or say --without-token"
        )


@contextmanager
def _bound_path(path: Path, mode: str) -> Iterator[socket.socket]:
    """A Unix socket, in place of one that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        try:
            _remove_dead(path)
            before = os.umask(0o777 & ~int(mode, 8))
            try:
                bound.bind(str(path))
            finally:
                os.umask(before)
            path.chmod(int(mode, 8))
        except OSError as error:
            raise ConfigError(f"serve.socket: {path}: {error.strerror or error}") from error
        made = path.stat().st_ino
        try:
            yield bound
        finally:
            with suppress(OSError):
                if path.stat().st_ino == made:
                    path.unlink()


def _remove_dead(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"serve.socket: {path} is there already, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"serve.socket: somebody listens on {path} already")


@contextmanager
def _metrics_of_workers(settings: Settings, workers: int) -> Iterator[None]:
    """Have several processes keep their metrics where one can add them up, unless the environment says where."""
    name = "PROMETHEUS_MULTIPROC_DIR"
    if workers < 2 or not settings.telemetry.metrics or name in os.environ:
        yield
        return
    os.environ[name] = tempfile.mkdtemp(prefix="uploadguard-metrics-")
    try:
        yield
    finally:
        shutil.rmtree(os.environ.pop(name), ignore_errors=True)


@contextmanager
def _sigterm_ends_quietly() -> Iterator[None]:
    """uvicorn, when it has stopped, raises the signal once more: what remains to be done here comes after that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
