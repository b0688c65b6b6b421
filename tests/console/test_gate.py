"""What every route does for everybody: who may come in, forms of its own only, headers on every answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.routing import Route

from tests.console.conftest import ORIGIN, World, browsing, signed_in
from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.ledger import schema
from uploadguard.ledger.people import Person, Role
from uploadguard.web.console import create_console

OPEN = {("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/static/{name}")}
ROLES = {
    "/queue": {"GET": {Role.REVIEW}, "POST": {Role.LEAD}},
    "/reports": {"GET": {Role.REVIEW, Role.LEAD}},
    "/lists": {"GET": {Role.REVIEW, Role.AUDIT}},
    "/activity": {"GET": {Role.REVIEW, Role.AUDIT}},
    "/audit": {"GET": {Role.AUDIT}, "POST": {Role.AUDIT}},
    "/previews/{token}": {"GET": {Role.REVEAL}},
    "/cases/{id:record}/preview": {"POST": {Role.REVEAL}},
    "/reports/{id:record}/retry": {"POST": {Role.LEAD}},
    "/reports/{id:record}/cancel": {"POST": {Role.LEAD}},
}


def routes(app: Any) -> list[tuple[str, str]]:
    found = []
    for route in app.routes:
        assert isinstance(route, Route)
        found += [(method, route.path) for method in route.methods or () if method != "HEAD"]
    return found


def path_of(route: str) -> str:
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda m: "1" if m[2] == ":record" else "x", route)


def check_headers(response: httpx.Response) -> None:
    found = response.headers
    assert "default-src 'none'" in found["content-security-policy"]
    assert "frame-ancestors 'none'" in found["content-security-policy"]
    assert "unsafe" not in found["content-security-policy"]
    assert "data:" not in found["content-security-policy"]
    assert found["referrer-policy"] == "no-referrer"
    assert found["x-content-type-options"] == "nosniff"
    for name in ("opener", "embedder", "resource"):
        assert f"cross-origin-{name}-policy" in found
    assert "camera=()" in found["permissions-policy"]
    if "/static/" not in str(response.url):
        assert found["cache-control"] == "no-store"


def test_every_route_is_for_known_people_and_every_form_must_be_our_own(world: World) -> None:
    async def walk() -> None:
        app = create_console(world.settings)
        async with browsing(app) as stranger:
            for method, route in routes(app):
                response = await stranger.client.request(method, path_of(route))
                check_headers(response)
                if (method, route) not in OPEN:
                    assert response.status_code == 303, route
                    assert response.headers["location"].startswith("/sign-in"), route
        app.state.close()
        async with signed_in(world) as ada:
            await ada.get("/queue")
            token = ada.token()
            posts = [route for method, route in routes(ada_app(ada)) if method == "POST"]
            assert len(posts) >= 13
            for route in posts:
                for form_token, headers in (
                    ("0" * 64, {}),
                    ("", {}),
                    (token, {"sec-fetch-site": "cross-site"}),
                    (token, {"sec-fetch-site": "same-site"}),
                    (token, {"sec-fetch-site": "none"}),
                ):
                    response = await ada.post(path_of(route), {}, token=form_token, **headers)
                    assert response.status_code == 403, route
                    check_headers(response)
                bare = await ada.client.post(path_of(route), content=f"csrf={token}", headers=FORM)
                assert bare.status_code == 403, "a browser that does not say where the form came from"
        assert "case.claim" not in world.audited()

    asyncio.run(walk())


FORM = {"content-type": "application/x-www-form-urlencoded"}


def ada_app(browser: Any) -> Any:
    return browser.client._transport.app


@pytest.mark.parametrize("role", list(Role))
def test_each_role_opens_what_is_its_own(world: World, role: Role) -> None:
    async def walk() -> None:
        async with signed_in(world, role) as ada:
            page = await ada.get("/nowhere")
            token = ada.token()
            assert page.status_code == 404
            for method, route in routes(ada_app(ada)):
                wanted = ROLES.get(route, {}).get(method)
                if wanted is None and route.startswith(("/cases", "/decisions")):
                    wanted = {Role.REVIEW}
                if wanted is None or route == "/sign-out":
                    continue
                if method == "GET":
                    response = await ada.get(path_of(route))
                    known = b"There is no such page" not in response.content
                else:
                    response = await ada.post(path_of(route), {}, token=token)
                    known = f"needs the role &#39;{next(iter(wanted))}&#39;" not in response.text
                assert known == (role in wanted), (method, route)

    asyncio.run(walk())


def test_the_first_page_is_one_that_the_person_may_see(world: World) -> None:
    async def walk(role: Role, where: str | None) -> None:
        async with signed_in(world, role, name=f"p-{role}") as ada:
            page = await ada.get("/")
            assert page.headers.get("location") == where
            if where is None:
                assert page.status_code == 403

    for role, where in ((Role.REVIEW, "/queue"), (Role.LEAD, "/reports"), (Role.AUDIT, "/audit"), (Role.ADMIN, None)):
        asyncio.run(walk(role, where))


def test_signing_in_makes_a_new_session_and_signing_out_ends_it(world: World) -> None:
    async def walk() -> None:
        password = world.account("ada")
        app = create_console(world.settings)
        async with browsing(app) as ada:
            first = await ada.get("/sign-in?next=/cases/1")
            (cookie,) = first.headers.get_list("set-cookie")
            assert cookie.startswith("__Host-uploadguard_forms=")
            for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
                assert word in cookie
            planted = "a" * 43
            ada.client.cookies.set("__Host-uploadguard_session", planted, domain="console.test")
            await ada.get("/sign-in?next=/cases/1")
            page = await ada.post("/sign-in", {"name": "ada", "password": password, "next": "/cases/1"})
            assert page.headers["location"] == "/cases/1"
            session = next(one for one in page.headers.get_list("set-cookie") if "session" in one)
            assert "HttpOnly" in session
            assert "Secure" in session
            assert "SameSite=strict" in session
            assert "Max-Age" not in session, "it ends with the browser"
            assert planted not in session
            old = dict(ada.client.cookies)
            await ada.follow()
            assert ada.page.status_code == 200
            await ada.post("/sign-out")
            assert ada.page.headers["location"] == "/sign-in?done=signed-out"
            ada.client.cookies.clear()
            ada.client.cookies.update(old)
            again = await ada.get("/cases/1")
            assert again.status_code == 303, "the session is over on the server, too"
        app.state.close()

    asyncio.run(walk())


@pytest.mark.parametrize("wanted", ["//evil.test", "https://evil.test", "/\\evil.test", "/x?y=z", "javascript:x"])
def test_signing_in_never_leads_elsewhere(world: World, wanted: str) -> None:
    async def walk() -> None:
        password = world.account("ada")
        app = create_console(world.settings)
        async with browsing(app) as ada:
            await ada.get("/sign-in")
            page = await ada.post("/sign-in", {"name": "ada", "password": password, "next": wanted})
            assert page.headers["location"] == "/"
        app.state.close()

    asyncio.run(walk())


def test_failed_sign_ins_cost_a_wait_by_address_and_keep_nobody_else_out(world: World) -> None:
    async def walk() -> None:
        password = world.account("ada")
        app = create_console(world.settings)
        async with browsing(app) as eve, browsing(app, address="192.0.2.10") as ada:
            await eve.get("/sign-in")
            token = eve.token()
            codes = []
            for number in range(13):
                name = "ada" if number % 2 else f"x{number}"
                page = await eve.post("/sign-in", {"name": name, "password": "wrong"}, token=token)
                codes.append(page.status_code)
            assert codes[:11] == [403] * 11
            assert 429 in codes[11:]
            for _ in range(3):
                page = await eve.post("/sign-in", {"name": "ada", "password": password}, token=token)
                if page.status_code == 429:
                    break
            assert page.status_code == 429, "the right password has to wait as well"
            assert int(page.headers["retry-after"]) >= 1
            assert "account.sign_in" not in world.audited()
            assert (await ada.sign_in("ada", password)).status_code == 303, "who was tried is not kept out"
        app.state.close()

    asyncio.run(walk())


@pytest.mark.parametrize("name", ["", " ", "system", "Guard", "outbox ", "a\nb"])
def test_the_host_cannot_give_a_name_that_is_no_persons(world: World, name: str) -> None:
    async def walk() -> None:
        app = create_console(world.settings, authenticate=lambda _request: Person(name, frozenset(Role)))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            assert (await client.get("/queue")).status_code == 500
        app.state.close()

    asyncio.run(walk())


def test_a_form_larger_than_any_of_ours_is_refused(world: World) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            await ada.get("/cases/1")
            page = await ada.post("/cases/1/comment", {"note": "x" * 300_000})
            assert page.status_code == 413

    asyncio.run(walk())


@pytest.mark.parametrize("sync", [True, False])
def test_the_hosts_own_authentication(world: World, sync: bool) -> None:
    def known(request: Any) -> Person | None:
        name = request.headers.get("x-user")
        return Person(name, frozenset({Role.REVIEW})) if name else None

    async def known_later(request: Any) -> Person | None:
        await asyncio.sleep(0)
        return known(request)

    async def walk() -> None:
        app = create_console(world.settings, authenticate=known if sync else known_later)
        assert ("GET", "/sign-in") not in routes(app)
        async with browsing(app) as ada:
            for method, route in routes(app):
                response = await ada.client.request(method, path_of(route))
                check_headers(response)
                if (method, route) not in OPEN:
                    assert response.status_code == 401, route
            page = await ada.get("/cases/1", **{"x-user": "ada"})
            assert page.status_code == 200
            assert "Sign out" not in page.text
            token = ada.token()
            stolen = await ada.post("/cases/1/claim", token=token, **{"x-user": "mallory"})
            assert stolen.status_code == 403, "a token is one person's"
            done = await ada.post("/cases/1/claim", token=token, **{"x-user": "ada"})
            assert done.status_code == 303
            ada.client.cookies.clear()
            gone = await ada.post("/cases/1/comment", {"note": "x"}, token=token, **{"x-user": "ada"})
            assert gone.status_code == 403, "without its cookie a token is nothing"
        app.state.close()

    asyncio.run(walk())
    assert world.audited()[-1] == "case.claim"


def test_without_https_cookies_have_no_prefix_and_the_origin_is_compared(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    settings = Settings.load(world.config, console={"secure_cookies": False})

    async def walk() -> None:
        password = world.account("ada")
        app = create_console(settings)
        origin = "http://console.test"
        async with browsing(app, origin=origin) as ada:
            page = await ada.client.get("/sign-in")
            ada.page = page
            assert page.headers["referrer-policy"] == "same-origin"
            assert page.headers["set-cookie"].startswith("uploadguard_forms=")
            assert "Secure" not in page.headers["set-cookie"]
            form = f"csrf={ada.token()}&name=ada&password={password}"
            for given, status in (
                ({"origin": "http://evil.test"}, 403),
                ({"origin": "null"}, 403),
                ({"origin": "http://[evil"}, 403),
                ({"origin": "http://"}, 403),
                ({"origin": "http://console.test.evil.test"}, 403),
                ({}, 403),
                ({"origin": origin}, 303),
            ):
                page = await ada.client.post("/sign-in", content=form, headers={**FORM, **given})
                assert page.status_code == status, given
        app.state.close()

    asyncio.run(walk())


def test_mounted_under_a_path(world: World) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async def walk() -> None:
        console = create_console(world.settings)
        app = Starlette(routes=[Mount("/staff/review", app=console)])
        password = world.account("ada")
        async with browsing(app, root="/staff/review") as ada:
            await ada.sign_in("ada", password)
            assert ada.page.headers["location"] == "/staff/review/"
            await ada.follow()
            assert ada.page.headers["location"] == "/staff/review/queue"
            await ada.follow()
            links = set(re.findall(r'(?:href|src|action)="([^"]+)"', ada.page.text))
            assert len(links) > 8
            assert {link for link in links if not link.startswith(("/staff/review/", "#"))} == set()
            for link in links:
                if "/static/" in link:
                    assert (await ada.client.get(link)).status_code == 200
            await ada.get("/cases/1")
            await ada.post("/theme", {"theme": "dark", "back": "/cases/1"})
            assert ada.page.headers["location"] == "/staff/review/cases/1"
            await ada.follow()
            assert 'data-theme="dark"' in ada.page.text
        console.state.close()

    asyncio.run(walk())


@pytest.mark.parametrize("back", ["https://evil.test/", "//evil.test", "/\\evil.test", "/\nx"])
def test_choosing_colours_never_leads_elsewhere(world: World, back: str) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            await ada.get("/queue")
            page = await ada.post("/theme", {"theme": "dark", "back": back})
            assert page.headers["location"] == "/"

    asyncio.run(walk())


def test_nothing_waits_on_the_event_loop(world: World) -> None:
    """While the database makes a page wait, the loop goes on: another answer comes meanwhile."""

    async def walk() -> None:
        async with signed_in(world) as ada:
            with world.database.engine.connect() as holder:
                holder.exec_driver_sql("BEGIN EXCLUSIVE")
                await ada.get("/cases/1")
                waiting = asyncio.create_task(ada.post("/cases/1/claim"))
                ticks = 0
                for _ in range(20):
                    await asyncio.sleep(0.01)
                    ticks += 1
                    assert (await ada.client.get("/static/console.css")).status_code == 200
                assert not waiting.done(), "the claim waits for the lock"
                holder.exec_driver_sql("ROLLBACK")
            page = await waiting
            assert page.status_code == 303
            assert ticks == 20

    asyncio.run(walk())


def test_a_database_that_fails_is_said_in_words(world: World) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            await ada.get("/cases/1")
            with world.database.changing() as connection:
                connection.execute(sa.delete(schema.audit_head))
            page = await ada.post("/cases/1/claim")
            assert page.status_code == 503
            assert "Nothing was done" in page.text
            check_headers(page)
            with world.database.reading() as connection:
                assert connection.execute(sa.select(schema.cases.c.claimed_by)).scalar_one() is None

    asyncio.run(walk())


def test_a_fault_of_the_hosts_authentication_is_an_answer_with_all_headers(world: World) -> None:
    def broken(request: Any) -> Person:
        raise RuntimeError("no directory")

    async def walk() -> None:
        app = create_console(world.settings, authenticate=broken)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            response = await client.get("/queue")
            assert response.status_code == 500
            assert "directory" not in response.text
            check_headers(response)
        app.state.close()

    asyncio.run(walk())


def test_without_a_ledger_there_is_no_console(world: World) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.path"):
        create_console(Settings.load(hashset={"path": world.path / "hashset"}))
