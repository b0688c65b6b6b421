"""What goes to the log is redacted."""

from __future__ import annotations

import base64
import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.logs import log, redact


@given(st.binary(min_size=1), st.sampled_from(["md5", "sha1", "sha256"]))
def test_no_digest_comes_through_in_any_usual_writing(data: bytes, kind: str) -> None:
    digest = hashlib.new(kind, data).digest()
    for text in (
        digest.hex(),
        digest.hex().upper(),
        base64.b64encode(digest).decode(),
        base64.b32encode(digest).decode(),
        repr(digest),
    ):
        shown = redact(f"plugin x: cannot look up {text}: no answer")
        assert text not in shown
        assert shown.startswith("plugin x: cannot look up ")
        assert shown.endswith(": no answer")


@pytest.mark.parametrize(
    "text",
    [
        "/var/lib/uploadguard/hashset/segments/0123456789abcdef.segment: truncated at byte 1234567890123",
        "the new generation of the hash set was refused and the old one goes on serving",
        "fail-open settings let uploads through uninspected: truncated, unsupported_format",
        "https://example.org/averyveryverylongpath/andanotherveryverylongpartofit/index.html",
    ],
)
def test_what_is_no_hash_stays(text: str) -> None:
    assert redact(text) == text


def test_the_logger_redacts_messages_arguments_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    value = hashlib.sha256(b"x").hexdigest()
    with caplog.at_level(logging.INFO, logger="uploadguard"):
        log.info("found %s in %d lists", value, 3)
        try:
            raise KeyError(value)
        except KeyError:
            log.exception("a plugin failed")
        log.info("three of %d", 3)
    shown = caplog.text
    assert value not in shown
    assert "found <redacted> in 3 lists" in shown
    assert "KeyError" in shown
    assert caplog.records[-1].args == (3,), "records without a hash keep their shape, for handlers that group by it"
