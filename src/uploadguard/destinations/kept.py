"""Connections that serve several requests, without giving up a hard end in time or the certainty whose answer it is.

An httpx transport of its own, since that library's pool neither ends a conversation whose every byte comes in time, nor
tells whether a server sent more than its answer: the rest would be read as the answer to the next request.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import h11
import httpx

__all__ = ["KeptConnections"]

_READ_BYTES = 65536
_WRITE_BYTES = 65536
_MAX_HEAD_BYTES = 65536


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class _GoneError(Exception):
    """The connection was closed, or broke, before anything of an answer came over it."""


class KeptConnections(httpx.BaseTransport):
    """HTTP/1.1 over connections of which ``most`` are kept, each for ``idle_s`` after its last answer. Thread-safe.

    Each request needs the extensions ``until`` and ``connect_until``, by :func:`time.monotonic`: when the conversation
    ends, whatever the other side does (but looking up a host's name cannot be cut short). A request whose kept
    connection turns out to be closed is sent again over a new one: use it for requests that may arrive twice. An answer
    to a request that was not sent in full counts only if its status is an error.
    """

    def __init__(self, tls: ssl.SSLContext, *, most: int, idle_s: float = 30.0) -> None:
        self._tls = tls
        self._most = most
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._open: set[socket.socket] = set()
        self._closed = False
        weakref.finalize(self, _close_all, self._open)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises :class:`httpx.TransportError`."""
        url = request.url
        origin = _Origin(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        until: float = request.extensions["until"]
        kept = self._take(origin)
        if kept is not None:
            with contextlib.suppress(_GoneError):
                return kept.ask(request, until)
        connection = self._connect(origin, min(until, request.extensions["connect_until"]))
        try:
            return connection.ask(request, until)
        except _GoneError as error:
            raise httpx.RemoteProtocolError("closed without an answer") from error.__cause__

    def close(self) -> None:
        """Close what is kept, and keep nothing from now on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def abandon(self) -> None:
        """In a forked child: close its copies of the parent's sockets, without a word to the other side."""
        _close_all(self._open)

    def _take(self, origin: _Origin) -> _Connection | None:
        now = time.monotonic()
        with self._lock:
            fit = [one for one in self._idle if one.origin == origin]
            old = [one for one in self._idle if now - one.since > self._idle_s]
            taken = next((one for one in reversed(fit) if one not in old), None)
            self._idle = [one for one in self._idle if one not in old and one is not taken]
        for one in old:
            one.close()
        if taken is None or taken.is_quiet():
            return taken
        taken.close()
        return None

    def keep(self, connection: _Connection) -> bool:
        """Whether it is kept for another request."""
        with self._lock:
            if self._closed or len(self._idle) >= self._most:
                return False
            connection.since = time.monotonic()
            self._idle.append(connection)
            return True

    def forget(self, connected: socket.socket) -> None:
        """It is closed."""
        self._open.discard(connected)

    def _connect(self, origin: _Origin, until: float) -> _Connection:
        try:
            places = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("no such host") from error
        problem: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(places):
            fresh = socket.socket(family, kind, protocol)
            try:
                # One address that does not answer must not use up the time of the others.
                fresh.settimeout(_left(until, httpx.ConnectTimeout) / (len(places) - number))
                fresh.connect(address)
                fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                fresh.settimeout(_left(until, httpx.ConnectTimeout))
                ready = self._secure(fresh, origin.host) if origin.scheme == "https" else fresh
            except httpx.ConnectTimeout:
                fresh.close()
                raise
            except OSError as error:
                fresh.close()
                problem = error
                continue
            self._open.add(ready)
            return _Connection(self, origin, ready)
        if isinstance(problem, TimeoutError):
            raise httpx.ConnectTimeout("no connection in time") from problem
        raise httpx.ConnectError("no connection") from problem

    def _secure(self, fresh: socket.socket, host: str) -> ssl.SSLSocket:
        # The socket has a timeout, which holds for a handshake as a whole. An end that TLS does not confirm is none.
        return self._tls.wrap_socket(fresh, server_hostname=host, suppress_ragged_eofs=False)


class _Connection:
    """One connection. One thread at a time has it."""

    def __init__(self, owner: KeptConnections, origin: _Origin, connected: socket.socket) -> None:
        self.origin = origin
        self.since = 0.0
        self._owner = owner
        self._socket = connected
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._broke: OSError | None = None

    def ask(self, request: httpx.Request, until: float) -> httpx.Response:
        """Send a request, and read the head of its answer; the body comes from the response's stream.

        Raises :class:`_GoneError`, :class:`httpx.TransportError`.
        """
        try:
            return self._ask(request, until)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it. Twice does no harm."""
        self._owner.forget(self._socket)
        self._socket.close()

    def is_quiet(self) -> bool:
        """Whether nothing came over it unasked: no end, and no answer to a question that nobody put."""
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return not poll.poll(0) and not _pending(self._socket)
        except (OSError, ValueError):
            return False

    def events(self, until: float) -> Iterator[h11.Event]:
        """What the other side says, until the end of its answer."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError("not HTTP") from error
            if event is h11.NEED_DATA:
                self._http.receive_data(self._receive(until))
            elif isinstance(event, h11.Event):
                yield event
                if isinstance(event, h11.EndOfMessage):
                    return
            else:
                raise httpx.RemoteProtocolError("more than an answer")

    def done(self) -> None:
        """The answer was read, or nobody wants more of it: keep the connection if nothing is left over of it."""
        http = self._http
        complete = self._broke is None and http.our_state is h11.DONE and http.their_state is h11.DONE
        if complete and http.trailing_data == (b"", False) and not _pending(self._socket):
            http.start_next_cycle()
            if self._owner.keep(self):
                return
        self.close()

    def _ask(self, request: httpx.Request, until: float) -> httpx.Response:
        self._send(request, until)
        for event in self.events(until):
            if isinstance(event, h11.Response):
                if self._broke is not None and event.status_code < 400:
                    raise httpx.WriteError("answered before it was asked") from self._broke
                headers, body = event.headers.raw_items(), _Body(self, until)
                return httpx.Response(event.status_code, headers=headers, stream=body, request=request)
        raise httpx.RemoteProtocolError("no answer")

    def _send(self, request: httpx.Request, until: float) -> None:
        """Send all of it. What breaks on the way is only noted, since an answer may be there all the same."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        try:
            waiting = self._http.send(head) or b""
            for part in request.stream:
                data = self._http.send(h11.Data(data=part)) or b""
                if len(waiting) + len(data) > _WRITE_BYTES:
                    self._write(waiting, until)
                    waiting = b""
                waiting = waiting + data if waiting else data
            self._write(waiting + (self._http.send(h11.EndOfMessage()) or b""), until)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError("not a request") from error
        except TimeoutError as error:
            raise httpx.WriteTimeout("took too long") from error
        except OSError as error:
            self._broke = error

    def _write(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            self._socket.settimeout(_left(until, httpx.WriteTimeout))
            view = view[self._socket.send(view[:_WRITE_BYTES]) :]

    def _receive(self, until: float) -> bytes:
        self._socket.settimeout(_left(until, httpx.ReadTimeout))
        broke: OSError | None = None
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise httpx.ReadTimeout("took too long") from error
        except OSError as error:
            data, broke = b"", error
        if not data and self._http.their_state is h11.SEND_RESPONSE and not self._http.trailing_data[0]:
            raise _GoneError from broke
        if broke is not None:
            raise httpx.ReadError("broke") from broke
        return data


class _Body(httpx.SyncByteStream):
    """The body of an answer, as it comes in."""

    def __init__(self, connection: _Connection, until: float) -> None:
        self._connection = connection
        self._until = until
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        for event in self._connection.events(self._until):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    def close(self) -> None:
        """No more of it is wanted."""
        if not self._closed:
            self._closed = True
            self._connection.done()


def _close_all(sockets: set[socket.socket]) -> None:
    for one in tuple(sockets):
        with contextlib.suppress(OSError):
            one.close()


def _left(until: float, late: type[httpx.TimeoutException]) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise late("took too long")
    return left_s


def _pending(connected: socket.socket) -> int:
    return connected.pending() if isinstance(connected, ssl.SSLSocket) else 0
