"""What the pages show and do, in process, against a real ledger."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.console.conftest import ADMIN, World, browsing, signed_in
from tests.ledger.conftest import made_up_record
from uploadguard.guard import Guard
from uploadguard.ledger import schema
from uploadguard.ledger.people import Role
from uploadguard.ledger.recording import record
from uploadguard.models import Context, Verdict
from uploadguard.web import console as console_package
from uploadguard.web.console import create_console
from uploadguard.web.console.plots import Series, bars
from uploadguard.web.console.throttle import Throttle, network_of


def record_cases(world: World, count: int, **options: Any) -> list[dict[str, Any]]:
    records = [
        made_up_record(entry=f"e{n}", context=Context(uploader=f"user-{n}", object_id=f"o-{n}"), **options)
        for n in range(count)
    ]
    with world.database.writing() as connection:
        record(connection, records, world.ledger.plan)
    return records  # type: ignore[return-value]


def test_pages_say_where_a_match_comes_from_and_what_shadow_mode_changed(world: World) -> None:
    one = made_up_record(entry="e1", context=Context(uploader="u"))
    one["matches"][0] |= {  # type: ignore[index]
        "source": "<b>hotline.csv", "listed_at": "2026-05-04T08:15:00+00:00", "updated_at": "2026-05-05T09:00:00+00:00",
        "fields": {"note": "series <i>"},
    }  # fmt: skip
    one["shadow"] = "block"
    with world.database.writing() as connection:
        (ids,) = record(connection, [one], world.ledger.plan)

    async def look() -> None:
        async with signed_in(world) as ada:
            for path in (f"/cases/{ids.case_id}", f"/decisions/{one['reference']}"):
                text = (await ada.get(path)).text
                for said in (
                    "source: &lt;b&gt;hotline.csv", "listed: 2026-05-04 08:15 UTC",
                    "list updated: 2026-05-05 09:00 UTC", "note: series &lt;i&gt;", "in shadow mode: would be blocked",
                ):  # fmt: skip
                    assert said in text, said

    asyncio.run(look())


def test_the_queue_is_filtered_and_paged(world: World) -> None:
    record_cases(world, 120)

    async def walk() -> None:
        async with signed_in(world) as ada:
            seen: list[int] = []
            page = await ada.get("/queue")
            for _ in range(5):
                seen += map(int, re.findall(r'href="/cases/(\d+)"', page.text))
                more = re.search(r'href="([^"]+)">Next page', page.text)
                if more is None:
                    break
                page = await ada.get(more[1].replace("&amp;", "&"))
            assert sorted(seen) == list(range(1, 122))
            for query, count in (
                ("text=user-7", 1), ("text=obj-1", 1), ("tenant=photos", 1), ("list=made-up", 50),
                ("reason=perceptual_match", 1), ("claimed=me", 0), ("claimed=nobody", 50), ("escalated=yes", 0),
                ("status=dismissed", 0), ("list=other", 0),
            ):  # fmt: skip
                page = await ada.get(f"/queue?{query}")
                assert page.text.count("data-row") == count, query
            assert (await ada.get("/queue?text=user-7%00")).text.count("data-row") == 1
            assert (await ada.get("/decisions/%00")).status_code == 404
            for query in ("status=nope", "claimed=eve", "after=x", "after=2020-01-01/1"):
                assert (await ada.get(f"/queue?{query}")).status_code == 400, query

    asyncio.run(walk())


def test_a_case_from_claim_to_reopening(world: World) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            for act, form, words in (
                ("claim", {}, "The case is yours"),
                ("unclaim", {}, "gave the case back"),
                ("comment", {"note": "<b>bold</b>"}, "&lt;b&gt;bold&lt;/b&gt;"),
                ("escalate", {"note": "strange"}, "Escalated"),
                ("decide", {"outcome": "dismiss", "remember": "yes"}, "Dismissed"),
                ("requeue", {"note": "oh"}, "open again"),
                ("decide", {"outcome": "confirm", "ban": "yes", "remember": "yes"}, "Confirmed"),
            ):
                await ada.get("/cases/1")
                await ada.post(f"/cases/1/{act}", form)
                page = await ada.follow()
                assert words in page.text, act
            assert "<b>bold" not in page.text
            assert page.text.count(">waiting<") == 3, "a report, a removal and a ban"
            again = await ada.post("/cases/1/decide", {"outcome": "dismiss"})
            assert again.status_code == 409
            assert "Nothing was done" in again.text
            assert "Back to the case" in again.text
            for form in ({"outcome": "maybe"}, {}):
                await ada.get("/cases/1")
                assert (await ada.post("/cases/1/decide", form)).status_code == 400
            await ada.get("/cases/1")
            assert (await ada.post("/cases/1/comment", {"note": "  "})).status_code == 400
            await ada.get("/cases/1")
            assert (await ada.post("/cases/77/claim")).status_code == 404
            assert (await ada.get("/cases/99999999999999999999")).status_code == 404

    asyncio.run(walk())


def test_confirmed_is_blocked_at_once_and_dismissed_passes(world: World) -> None:
    world.list_photo("coffee.png", "entry-8")
    world.upload("coffee.png", uploader="another")

    async def walk() -> None:
        async with signed_in(world) as ada:
            for case_id, outcome in ((1, "confirm"), (2, "dismiss")):
                await ada.get(f"/cases/{case_id}")
                await ada.post(f"/cases/{case_id}/decide", {"outcome": outcome, "remember": "yes"})
                assert ada.page.status_code == 303

    asyncio.run(walk())
    assert world.upload("astronaut.png").verdict is Verdict.BLOCK
    assert world.upload("coffee.png").verdict is Verdict.ALLOW


def test_many_at_once_are_for_leads_and_failures_are_named(world: World) -> None:
    record_cases(world, 3)

    async def walk() -> None:
        async with signed_in(world, Role.REVIEW) as bob:
            page = await bob.get("/queue")
            assert 'name="case"' not in page.text
            assert (await bob.post("/queue", {"case": [1, 2], "outcome": "dismiss", "sure": "yes"})).status_code == 403
        async with signed_in(world, name="lee") as lee:
            for form in (
                {"outcome": "dismiss", "sure": "yes"},
                {"case": [1], "sure": "yes"},
                {"case": [1], "outcome": "dismiss"},
            ):
                await lee.get("/queue")
                assert (await lee.post("/queue", form)).status_code == 400
            await lee.get("/queue")
            await lee.post("/queue", {"case": [1, 2], "outcome": "dismiss", "sure": "yes", "note": "family"})
            page = await lee.follow()
            assert "chosen cases are decided" in page.text
            page = await lee.post("/queue", {"case": [2, 3], "outcome": "dismiss", "sure": "yes"})
            assert page.status_code == 409
            assert "not done" in page.text
            assert "case 2 was dismissed" in page.text

    asyncio.run(walk())
    assert [case.status.value for case in world.ledger.cases.list().cases] == ["open"]


def test_a_preview_is_asked_for_logged_and_served_once_to_its_person(world: World) -> None:
    async def walk() -> None:
        bobs = world.account("bob", Role.REVIEW, Role.REVEAL)
        async with signed_in(world) as ada:
            page = await ada.get("/cases/1")
            assert "<img" not in page.text
            for form, status in (
                ({"decision": 1}, 400),
                ({"decision": 1, "reason": "  "}, 400),
                ({"decision": 2, "reason": "x"}, 404),
                ({"decision": "x", "reason": "x"}, 404),
                ({"decision": 1, "reason": "x", "frame": "0"}, 400),
                ({"decision": 1, "reason": "x", "frame": "x"}, 400),
            ):
                await ada.get("/cases/1")
                assert (await ada.post("/cases/1/preview", form)).status_code == status, form
            assert "evidence.reveal" not in world.audited()
            sizes = []
            for clear in ("", "yes"):
                await ada.get("/cases/1")
                await ada.post("/cases/1/preview", {"decision": 1, "reason": "why", "clear": clear})
                page = await ada.follow()
                (address,) = re.findall(r'<img src="([^"]+)"', page.text)
                async with browsing(ada.client._transport.app) as bob:
                    await bob.sign_in("bob", bobs)
                    other = await bob.get(address)
                    assert other.status_code == 410, "it is another's"
                served = await ada.get(address)
                assert served.headers["content-type"] == "image/png"
                assert served.headers["cache-control"] == "no-store"
                sizes.append(len(served.content))
                again = await ada.get(address)
                assert again.status_code == 410
                assert again.headers["content-type"] == "image/svg+xml"
            assert sizes[1] > sizes[0] * 2, "the clear one has more to it"
            await ada.get("/cases/1")
            await ada.post("/cases/1/preview", {"decision": 1, "reason": "why"})
            page = await ada.follow()
            (address,) = re.findall(r'<img src="([^"]+)"', page.text)
            with world.database.changing() as connection:
                past = datetime.now(UTC) - timedelta(seconds=1)
                connection.execute(sa.update(schema.preview_grants).values(expires_at=past))
            assert (await ada.get(address)).status_code == 410, "too late"

    asyncio.run(walk())
    assert world.audited().count("evidence.reveal") == 2


def test_asking_for_a_previews_headers_is_no_view(world: World) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            await ada.get("/cases/1")
            await ada.post("/cases/1/preview", {"decision": "1", "reason": "x", "clear": "yes"})
            page = await ada.follow()
            address = re.search(r'/previews/[^"]+', page.text)
            assert address is not None
            assert (await ada.client.head(address[0])).status_code == 405
            assert "evidence.reveal" not in world.audited()
            assert not world.ledger.cases.show(1).case.viewed
            assert (await ada.get(address[0])).headers["content-type"] == "image/png"

    asyncio.run(walk())


def test_addresses_that_no_page_gave(world: World) -> None:
    """Numbers and times beyond what Python or a database can hold."""

    async def walk() -> None:
        async with signed_in(world) as ada:
            for path, status in (
                ("/cases/" + "9" * 5000, 404),
                ("/cases/9999999999999999999", 404),
                ("/queue?after=0001-01-01T00:00:00%2B14:00/1", 400),
                ("/queue?after=9999-12-31T23:59:59-14:00/1", 400),
            ):
                assert (await ada.get(path)).status_code == status, path[:60]

    asyncio.run(walk())


def test_where_nothing_can_be_shown_it_says_so(world: World) -> None:
    world.ledger.evidence.destroy(1, ADMIN, "order 4711")

    async def walk() -> None:
        async with signed_in(world, Role.REVIEW) as bob:
            await bob.get("/cases/1")
            assert "was destroyed" in bob.page.text
            assert (await bob.post("/cases/1/preview", {"decision": 1, "reason": "x"})).status_code == 403
        async with signed_in(world, name="lee") as ada:
            await ada.get("/cases/1")
            assert (await ada.post("/cases/1/preview", {"decision": 1, "reason": "x"})).status_code == 410

    asyncio.run(walk())


def test_without_a_vault_no_preview_is_offered(make_world: Callable[..., World]) -> None:
    world = make_world(vault=False)
    world.list_photo("astronaut.png", "entry-7")
    world.upload("astronaut.png")

    async def walk() -> None:
        async with signed_in(world) as ada:
            page = await ada.get("/cases/1")
            assert "Files are not kept here" in page.text
            assert "Show blurred preview" not in page.text

    asyncio.run(walk())


def test_reports_are_mended_by_leads(world: World) -> None:
    world.ledger.cases.decide([1], "confirm", ADMIN)
    with world.database.changing() as connection:
        tasks = schema.tasks
        connection.execute(
            sa.update(tasks).where(tasks.c.id == 1).values(state="refused", error="no <address>", attempts=1)
        )

    async def walk() -> None:
        async with signed_in(world, Role.REVIEW) as bob:
            page = await bob.get("/reports")
            assert "no &lt;address&gt;" in page.text
            assert "Try again" not in page.text
            assert (await bob.post("/reports/1/retry")).status_code == 403
        async with signed_in(world, name="lee") as lee:
            for query, count in (
                ("", 2),
                ("state=refused", 1),
                ("state=filed", 0),
                ("action=drop", 2),
                ("state=all", 2),
            ):
                page = await lee.get(f"/reports?{query}")
                assert page.text.count('data-label="What"') == count, query
            for query in ("state=x", "after=x"):
                assert (await lee.get(f"/reports?{query}")).status_code == 400
            await lee.get("/cases/1")
            await lee.post("/reports/1/retry", {"case": "1"})
            assert lee.page.headers["location"] == "/cases/1?done=retried#reports"
            await lee.get("/reports")
            await lee.post("/reports/2/cancel", {"note": ""})
            assert lee.page.status_code == 409
            await lee.get("/reports")
            await lee.post("/reports/2/cancel", {"note": "done by hand"})
            page = await lee.follow()
            assert "It was cancelled" in page.text

    asyncio.run(walk())
    world.work()
    assert [task.state.value for task in world.ledger.outbox.list()] == ["filed", "cancelled"]


def test_decisions_are_found_by_what_the_host_knows(world: World) -> None:
    records = record_cases(world, 60, verdict=Verdict.BLOCK)
    reference = str(records[3]["reference"])

    async def walk() -> None:
        async with signed_in(world) as ada:
            page = await ada.get("/decisions")
            assert page.text.count("data-row") == 50
            older = re.search(r'href="([^"]+)">Older', page.text)
            assert older is not None
            assert (await ada.get(older[1])).text.count("data-row") == 11
            for query, count in ((f"text={reference}", 1), ("text=o-7", 1), ("text=user-8", 1), ("verdict=queue", 1)):
                assert (await ada.get(f"/decisions?{query}")).text.count("data-row") == count, query
            page = await ada.get(f"/decisions/{reference}")
            assert "user-3" in page.text
            assert "e3" in page.text
            assert (await ada.get("/decisions/nope")).status_code == 404
            assert (await ada.get("/decisions?verdict=x")).status_code == 400

    asyncio.run(walk())


def test_text_of_uploaders_cannot_change_how_a_page_reads(world: World) -> None:
    record_cases(world, 1)
    nasty = 'a\u202egpj.exe"><script>x</script>'
    with world.database.writing() as connection:
        record(
            connection, [made_up_record(entry="n", context=Context(uploader=nasty, filename=nasty))], world.ledger.plan
        )

    async def walk() -> None:
        async with signed_in(world) as ada:
            for path in ("/queue", "/cases/3", "/decisions"):
                page = await ada.get(path)
                assert "\u202e" not in page.text, path
                assert "\\u202e" in page.text, path
                assert "<script>x" not in page.text, path

    asyncio.run(walk())


def test_the_audit_page_tells_of_tampering(world: World) -> None:
    async def walk() -> None:
        async with signed_in(world) as ada:
            page = await ada.get("/audit")
            assert "decision.record" in page.text
            page = await ada.post("/audit")
            assert "Nothing is wrong" in page.text
            with world.database.changing() as connection:
                connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == 1).values(entry="{}"))
            await ada.get("/audit")
            assert "cannot be read" in ada.page.text
            page = await ada.post("/audit")
            assert "not as it was written" in page.text

    asyncio.run(walk())


def test_counts_over_time_come_as_plots_and_tables(world: World) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with world.database.changing() as connection:
        connection.execute(sa.delete(schema.counts))
        for back, value in ((0, 5), (1, 1200), (30, 7000)):
            values = {"hour": hour - timedelta(hours=back), "name": "allow", "value": value}
            connection.execute(sa.insert(schema.counts).values(values))

    async def walk() -> None:
        async with signed_in(world) as ada:
            page = await ada.get("/activity")
            assert page.text.count("<svg") == 8
            assert "allowed: 1,205" in page.text
            assert "style=" not in page.text
            assert "allowed: 8,205" in (await ada.get("/activity?span=30d")).text
            assert (await ada.get("/activity?span=1y")).status_code == 400

    asyncio.run(walk())


def test_lists_with_a_guard_and_without(world: World) -> None:
    async def walk(app: Any) -> str:
        password = world.account("ada" + str(len(world.passwords)), Role.AUDIT)
        async with browsing(app) as ada:
            await ada.sign_in(list(world.passwords)[-1], password)
            page = (await ada.get("/lists")).text
        app.state.close()
        return page

    alone = asyncio.run(walk(create_console(world.settings)))
    assert "made-up" in alone
    assert "generation that serves" not in alone
    with Guard(world.settings) as guard:
        assert "generation that serves" in asyncio.run(walk(create_console(guard)))
    for file in (world.path / "hashset").glob("*anifest*"):
        file.write_bytes(b"broken")
    assert "cannot be read" in asyncio.run(walk(create_console(world.settings)))


def test_bars_add_up_and_hold_no_text_of_others() -> None:
    plot = bars(
        [Series("<b>", "block", [1, 0, 3]), Series("two", "queue", [0, 0, 1])], ["a", "b", "<c>"], "t", width=340
    )
    assert "<b>" not in plot
    assert "<c>" not in plot
    assert plot.count('class="bar block"') == 2
    assert "3 &lt;b&gt;, 1 two" in plot
    assert "<svg" in bars([Series("none", "allow", [0])], ["a"], "t", width=340)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_up_to_the_longest_and_are_forgotten() -> None:
    clock = Clock()
    throttle = Throttle(free=2, longest_s=10, forget_s=100, clock=clock)
    waits = []
    for _ in range(8):
        waits.append(throttle.wait_s("a"))
        throttle.failed("a")
    assert waits == [0, 0, 0, 1, 2, 4, 8, 10]
    assert throttle.wait_s("b") == 0
    clock.now = 101
    assert throttle.wait_s("a") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("x" * 64 + "a", "x" * 64 + "b", True),
    ],
)
def test_attempts_are_counted_by_what_one_customer_has(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_the_throttles_memory_is_bounded() -> None:
    throttle = Throttle(free=0, most=100, clock=Clock())
    for number in range(1000):
        throttle.failed(str(number))
    assert throttle.wait_s("1") == 0
    assert throttle.wait_s("999") == 1
    assert len(throttle._records) == 100


@pytest.mark.parametrize("name", ["console.css", "console.js", "icon.svg"])
def test_nothing_of_anybody_elses_is_loaded(world: World, name: str) -> None:
    async def walk() -> None:
        app = create_console(world.settings)
        async with browsing(app) as anybody:
            file = await anybody.client.get(f"/static/{name}")
            assert file.status_code == 200
            assert "immutable" in file.headers["cache-control"]
            text = file.text.replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text
            assert "https:" not in text
            assert "@import" not in text
            assert (await anybody.client.get("/static/..%2Fapp.py")).status_code in (303, 404)
        app.state.close()

    asyncio.run(walk())


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_enough(scheme: int) -> None:
    css = (Path(console_package.__file__).parent / "static" / "console.css").read_text()
    found = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", css))
    colours = {name: pair.split(", ")[scheme] for name, pair in found.items()} | {"on-accent": "#ffffff"}
    pairs = [(text, on, 4.5) for text in ("text", "soft", "link") for on in ("ground", "surface", "raised")]
    pairs += [(kind, f"{kind}-ground", 4.5) for kind in ("bad", "warn", "good", "info")]
    pairs += [("bad", "surface", 4.5), ("on-accent", "accent", 4.5), ("text", "info-ground", 4.5)]
    pairs += [(edge, on, 3.0) for edge in ("edge", "focus") for on in ("ground", "surface")]
    pairs += [(f"plot-{number}", "surface", 3.0) for number in range(1, 6)]
    for text, on, least in pairs:
        high, low = sorted((luminance(colours[text]), luminance(colours[on])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, (text, on)
