"""Who may do what, and what is said to those who may not."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.conftest import METRICS_TOKEN, TOKEN, Running
from uploadguard.config_hosts import ServeSettings
from uploadguard.errors import ConfigError
from uploadguard.testing.picture import unrelated_picture
from uploadguard.web.service import Scope, Tokens

GUARDED = [
    ("POST", "/v1/check"), ("POST", "/v1/check-hash"), ("POST", "/v1/hooks/tusd"), ("GET", "/v1/decisions/abcdefgh"),
    ("GET", "/metrics"),
]  # fmt: skip
WRONG = [
    "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", f"Token {TOKEN}",
    f"Bearer {TOKEN} {TOKEN}", "Bearer \xff", "Basic !", "Basic " + base64.b64encode(TOKEN.encode()).decode(),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("given", [WRONG[0], WRONG[3]])
def test_without_a_token_nothing_is_done(service: Running, method: str, path: str, given: str) -> None:
    reply = service.send(method, path, b"x" if method == "POST" else None, {"Authorization": given})
    assert (reply.status, reply.code, reply.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")


@pytest.mark.parametrize("given", WRONG)
def test_what_is_no_token_is_told_so(service: Running, given: str) -> None:
    assert service.send("POST", "/v1/check", unrelated_picture(), {"Authorization": given}).status == 401


@pytest.mark.parametrize(("method", "path"), GUARDED[:4])
def test_a_token_for_metrics_is_for_metrics(service: Running, method: str, path: str) -> None:
    given = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    assert service.send(method, path, b"x" if method == "POST" else None, given).code == "forbidden"
    reply = service.send("GET", "/metrics", headers=given)
    assert reply.status == 200
    assert b"uploadguard_service_requests_total" in reply.body


def test_a_client_that_can_only_do_basic_sends_the_token_as_its_password(service: Running) -> None:
    given = {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
    assert service.send("POST", "/v1/check", unrelated_picture(), given).status == 200


def test_health_and_description_need_none(service: Running) -> None:
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert service.send("GET", path, headers={"Authorization": ""}).status == 200
        assert service.send("HEAD", path, headers={"Authorization": ""}).body == b""


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/check"), ("POST", "/readyz"), ("DELETE", "/metrics")])
def test_another_method_is_told_which_it_takes(service: Running, method: str, path: str) -> None:
    reply = service.send(method, path)
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert reply.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/check/", "/v1/decisions", "//livez", "/%2e%2e/livez", "/docs"])
def test_everything_else_is_not_there(service: Running, path: str) -> None:
    assert service.send("GET", path, headers={"Authorization": ""}).code == "not_found"


def test_metrics_name_no_path_of_a_client(service: Running) -> None:
    service.send("GET", "/somebodys-name")
    service.send("GET", "/v1/decisions/somebodys-name")
    body = service.send("GET", "/metrics").body.decode()
    assert "somebody" not in body
    assert 'route="other",status="404"' in body


def test_without_metrics_it_is_said_how_to_have_them(make_service: Callable[..., Running]) -> None:
    reply = make_service(ledger=False).send("GET", "/metrics")
    assert (reply.status, reply.code) == (404, "metrics_off")


async def scope(tokens: Tokens, token: str) -> Scope | None:
    return await tokens.scope_of(f"Bearer {token}")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no token"),
        ("# only words\n", "no token"),
        (f"{TOKEN}\nshort\n", "line 2"),
        (f"{TOKEN} everything\n", "line 1"),
        ("umlauts-\u00fc-in-a-token-of-length\n", "line 1"),
        ("x" * 70_000, "too large"),
        ("\n".join(f"{TOKEN}{number}" for number in range(65)), "more than 64"),
    ],
)
def test_a_file_of_tokens_with_an_error_is_told_without_the_token(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        Tokens(write(tmp_path / "tokens", text))
    assert TOKEN not in str(raised.value)
    assert "short" not in str(raised.value)


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tokens(write(tmp_path / "tokens", TOKEN, 0o644))
    assert "every user" in caplog.text


def test_the_settings_name_one_source(tmp_path: Path) -> None:
    assert not Tokens.of(ServeSettings()).needed
    assert Tokens.of(ServeSettings(token_env="T"), {"T": TOKEN}).needed
    with pytest.raises(ConfigError, match="no environment variable"):
        Tokens.of(ServeSettings(token_env="T"), {})
    with pytest.raises(ConfigError, match="not both"):
        Tokens.of(ServeSettings(token_env="T", token_file=tmp_path), {})
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens.of(ServeSettings(token_file=tmp_path / "nowhere"))


def test_tokens_are_replaced_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    monkeypatch.setattr("uploadguard.web.service.tokens._LOOK_S", 0.0)
    caplog.set_level(logging.INFO)

    async def rotate() -> None:
        path = write(tmp_path / "tokens", TOKEN)
        tokens = Tokens(path)
        assert await scope(tokens, TOKEN) is Scope.ALL
        write(tmp_path / "new", f"{TOKEN}\n{METRICS_TOKEN}\n")
        (tmp_path / "new").replace(path)
        assert await scope(tokens, METRICS_TOKEN) is Scope.ALL
        assert await scope(tokens, TOKEN) is Scope.ALL
        write(tmp_path / "new", METRICS_TOKEN)
        (tmp_path / "new").replace(path)
        assert await scope(tokens, TOKEN) is None
        path.write_text("broken")
        assert await scope(tokens, METRICS_TOKEN) is Scope.ALL
        path.unlink()
        assert await scope(tokens, METRICS_TOKEN) is Scope.ALL
        assert await scope(tokens, "broken") is None

    asyncio.run(rotate())
    assert caplog.text.count("read again") == 2
    assert "stay as they were" in caplog.text
    assert METRICS_TOKEN not in caplog.text
