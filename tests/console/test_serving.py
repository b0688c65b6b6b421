"""What the server around the console adds: its access log."""

from __future__ import annotations

import logging

from uploadguard.web.listening import WithoutSecrets


def test_the_access_log_has_no_secrets_and_nothing_for_terminals() -> None:
    def logged(client: str, path: str) -> str:
        args = (client, "GET", path, "1.1", 200)
        record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None)
        assert WithoutSecrets().filter(record)
        return record.getMessage()

    assert logged("192.0.2.1:80", "/m/previews/abc?x=1") == '192.0.2.1:80 - "GET /m/previews/- HTTP/1.1" 200'
    assert logged("192.0.2.1:80", "/cases/1?grant=abc") == '192.0.2.1:80 - "GET /cases/1 HTTP/1.1" 200'
    # Latin-1, as headers are read: to a terminal that is the beginning of a command.
    assert logged("\x9b31m:80", "/").startswith("?31m:80 - ")
    assert len(logged("x" * 5000, "/")) < 100
