"""The console in a real browser: pages, keyboard, phone, screen reader, and what is away."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from playwright.async_api import Route as Asked
from tests.integration import npm
from tests.integration.apis import ADMIN, READER, WRITER, Data, application, needs_postgres
from tests.integration.consoles import CHROMIUM, PICTURES, Seat, Stack, behind, chromium, seat, serving
from tests.integration.servers import Cable, Postgres, free_port
from tests.integration.test_api_failures import fail

from telegram_stack.api.config import ComponentConfig, GatewayConfig, WorkerConfig
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.console import stages
from telegram_stack.simulator import rpc_auth
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.texts import text
from telegram_stack.worker import state

pytestmark = [
    needs_postgres,
    pytest.mark.requirement("API-07"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make browser-ready"),
    pytest.mark.skipif(bool(npm.missing()), reason=f"{npm.missing()} is not installed: make servers-ready"),
]

PHONE, PASSWORD = "5511999991234", "très secret"
PAGES = ("Overview", "Channels", "Messages", "Failures", "Account")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages are looked at often enough for a chart within a test."""
    monkeypatch.setattr(stages, "EVERY", 0.1 if PICTURES else 0.5)


@pytest.fixture
async def stack(api_database: Postgres, telegram: Telegram, link: Cable, tmp_path: Path) -> AsyncIterator[Stack]:
    """The API reaches its database by `link`."""
    async with behind(api_database, telegram, tmp_path, link.port) as made:
        yield made


@pytest.fixture
async def desk(browser: Browser, stack: Stack) -> AsyncIterator[Seat]:
    """Somebody who is not signed in yet."""
    async with seat(browser, stack.url) as taken:
        yield taken


async def test_an_operator_signs_in_with_the_keyboard_and_a_wrong_token_is_refused(desk: Seat) -> None:
    page = desk.page
    await page.goto(f"{desk.url}/console/channels")
    await expect(page).to_have_url(f"{desk.url}/console/sign-in")
    await page.keyboard.type("no-such-token-0123456789")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("This token is not known")
    assert await desk.context.cookies() == []
    await page.keyboard.type(READER)  # the field has the focus again
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    [cookie] = await desk.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert READER not in cookie["value"]
    assert READER not in await page.content()
    assert not [address for address in desk.asked if "token-0123" in address]
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    await page.get_by_role("button", name="Sign out").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await page.goto(desk.url)
    await expect(page).to_have_url(f"{desk.url}/console/sign-in")


async def test_the_overview_shows_every_stage_and_what_to_do(
    browser: Browser, api_database: Postgres, telegram: Telegram, tmp_path: Path
) -> None:
    away = ComponentConfig(name="Prometheus", host="127.0.0.1", port=free_port(), unit="prometheus")
    progress = {
        "begun_at": "2026-05-04T12:00:00Z",
        "updated_at": "2026-05-04T12:30:00Z",
        "outcome": None,
        "phases": {"0": {"status": "done", "finished_at": "2026-05-04T12:01:00Z"}, "1": {"status": "begun"}},
    }
    (tmp_path / "migration.json").write_text(json.dumps(progress))
    settings: dict[str, Any] = {"components": [away], "migration_file": str(tmp_path / "migration.json")}
    async with (
        behind(api_database, telegram, tmp_path, api_database.port, **settings) as stack,
        seat(browser, stack.url) as desk,
    ):
        await desk.sign_in(READER)
        cards = desk.page.locator(".stage")
        await expect(cards.locator("h3")).to_contain_text(["Receipt", "Spool", "Store", "Queue", "Cache", "Worker"])
        verdict = desk.page.get_by_role("region", name="It works, with limits")
        await expect(verdict).to_contain_text("Prometheus")
        await expect(verdict).to_contain_text("systemctl status prometheus")
        migration = desk.page.get_by_role("region", name="Migration")
        await expect(migration).to_contain_text("Under way")
        await expect(migration.get_by_role("listitem").first).to_contain_text("done")
        for number in range(600 if PICTURES else 60):
            stack.post(text(number), number % 3)
            state.MESSAGES.labels("published").inc()
            state.LATENCY.observe(0.012)
            await asyncio.sleep(0.03 + 0.02 * math.sin(number / 40))
        await desk.page.reload()
        await expect(cards.first.get_by_role("img")).to_have_attribute("aria-label", _pattern("Receipt over the last"))
        await expect(cards.last).to_contain_text("12 ms from receipt to effect")
        await desk.picture("console-overview")


async def test_a_message_shows_as_it_comes_and_is_found_by_its_words(desk: Seat, stack: Stack) -> None:
    page = desk.page
    stack.post("Bom dia, traders! Agenda cheia hoje.", 0)
    await desk.sign_in(READER)
    await desk.go("Messages")
    await expect(page.locator("#live-state")).to_have_text("live")
    channel = stack.post("COMPRA PETR4 de 31,20 até 31,45, <b>stop</b> 30,90", 1)
    items = page.get_by_role("list", name="Messages").get_by_role("listitem")
    # Not by its place: of two channels' messages within a second either may be the first, and other tests have theirs.
    posted = items.filter(has_text="COMPRA PETR4 de 31,20 até 31,45, <b>stop</b> 30,90")
    await expect(posted).to_be_visible()
    stack.post("Dólar fecha em queda de 0,4%", 0)
    await expect(items.filter(has_text="Dólar fecha")).to_be_visible()
    await desk.picture("console-messages")
    await page.get_by_role("button", name="Pause").press("Enter")
    await expect(page.locator("#live-state")).to_have_text("paused")
    await page.get_by_role("searchbox", name="Words").fill("compra -vale3")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(_pattern("q=compra"))
    await expect(posted).to_be_visible()
    await expect(items.filter(has_text="Dólar fecha")).to_have_count(0)
    await page.goto(f"{desk.url}/console/messages?channelId={channel}")
    await expect(page.locator("#live-state")).to_have_text("live")
    stack.post("VENDA VALE3", 1)
    stack.post("not of this channel", 0)
    await expect(items.filter(has_text="VENDA VALE3")).to_be_visible()
    await expect(items.filter(has_text="not of this channel")).to_have_count(0)
    await page.get_by_role("searchbox", name="Words").fill("nosuchwordatall")
    await page.keyboard.press("Enter")
    await expect(items).to_have_text(["Nothing has these words."])


async def test_a_message_that_comes_while_the_list_is_fetched_shows_as_well(desk: Seat, stack: Stack) -> None:
    page = desk.page
    fetched = asyncio.Event()

    async def slowly(route: Asked) -> None:
        answer = await route.fetch()
        fetched.set()
        await asyncio.sleep(2)  # longer than the page waits before it fetches again
        await route.fulfill(response=answer)

    await desk.sign_in(READER)
    await desk.go("Messages")
    await expect(page.locator("#live-state")).to_have_text("live")
    await page.route("**/console/messages*", slowly, times=1)
    stack.post("the first of two", 0)
    await fetched.wait()
    stack.post("the second of two", 0)
    await expect(page.get_by_text("the second of two")).to_be_visible()


async def test_failures_and_dead_letters_are_replayed(desk: Seat, data: Data) -> None:
    page = desk.page
    data.message(1, "COMPRA PETR4")
    data.state(1, "failed")
    failed = fail(data, "signals", 1, "ValueError: the price is none: 'abc'")
    dead = fail(data, "signals", 99, "dead letter after 5 deliveries")
    await desk.sign_in(WRITER)
    await desk.go("Failures")
    one = page.get_by_role("listitem").filter(has_text=f"no. {failed} ")
    await expect(one).to_contain_text("the price is none")
    await desk.picture("console-failures")
    await one.get_by_role("button", name=f"Replay failure {failed}").press("Enter")
    notice = page.get_by_role("status").filter(has_text="handed to the next poll")
    await expect(notice).to_contain_text("1 failure handed")
    await expect(notice).to_be_focused()
    await expect(one).to_have_count(0)
    await page.get_by_role("searchbox", name="Reason has").fill("DEAD letter after 5")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Replay all that fit").click()
    await expect(page.get_by_role("status")).to_contain_text("telegram-signal-worker replay does them")
    row = data.connection.execute(
        "SELECT f.replayed_at IS NOT NULL, p.status FROM telegram.failures AS f JOIN telegram.processing AS p"
        " USING (consumer, channel_id, message_id) WHERE f.id = %s",
        [failed],
    ).fetchone()
    assert row == (True, "reprocess_pending")
    await page.get_by_label("Those asked for again as well").check()
    await page.get_by_role("searchbox", name="Reason has").fill("")
    await page.get_by_role("button", name="Show").click()
    await expect(one).to_contain_text("asked for again")
    await expect(page.get_by_role("listitem").filter(has_text=f"no. {dead} ")).to_contain_text("waiting")


async def test_channels_are_registered_labelled_and_deactivated(desk: Seat, stack: Stack, api_channel: int) -> None:
    page = desk.page
    await desk.sign_in(WRITER)
    await desk.go("Channels")
    await page.get_by_text("Register a channel").press("Enter")
    await page.get_by_label("Channel id").fill("not a number")
    await page.get_by_role("button", name="Register").press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="must be a channel id")).to_be_focused()
    await page.get_by_text("Register a channel").press("Enter")
    await page.get_by_label("Channel id").fill(str(api_channel))
    await page.get_by_label("Label", exact=True).first.fill("Swing trades")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").filter(has_text=f"{api_channel} is registered")).to_be_focused()
    card = page.locator(f"#channel{api_channel}")
    await expect(card.get_by_role("heading")).to_have_text("Swing trades")
    await card.get_by_text("Change").press("Enter")
    await card.get_by_label("Label").fill("Day trades <&>")
    await card.get_by_role("button", name="Save label").click()
    await expect(card.get_by_role("heading")).to_have_text("Day trades <&>")
    await expect(page.get_by_role("status").filter(has_text="is now called Day trades <&>")).to_be_focused()
    await card.get_by_text("Change").press("Enter")
    await card.get_by_role("button", name="Deactivate").click()
    await expect(card).to_contain_text("inactive")
    own = page.locator(f"#channel{stack.post('Bom dia', 0)}")
    async with asyncio.timeout(10):  # the gateway registers it with its first message
        while not await own.is_visible():
            await page.reload()
    await expect(own).to_contain_text("complete")
    await own.get_by_text("Change").press("Enter")
    await desk.picture("console-channels")
    await own.get_by_role("button", name="Read history again").click()
    await expect(page.get_by_role("region", name="Reading history")).to_contain_text("done")


async def test_who_may_only_read_is_offered_no_more_and_refused_it(desk: Seat, data: Data) -> None:
    failed = fail(data, "signals", 98, "a reader may look")
    await desk.sign_in(READER)
    for title in PAGES:
        await desk.go(title)
        buttons = {await button.inner_text() for button in await desk.page.get_by_role("button").all()}
        assert buttons <= {"Sign out", "Search", "Show", "Pause"}, title
    await expect(desk.page.get_by_role("main")).to_contain_text("To log in takes a token of scope admin.")
    refusal = await desk.page.evaluate(
        "body => fetch('/console/failures', {method: 'POST', body: new URLSearchParams(body)})"
        ".then(async answer => [answer.status, await answer.text()])",
        {"action": "one", "id": failed},
    )
    assert refusal[0] == 403
    assert "This needs a token of scope write" in refusal[1]


async def test_the_account_logs_in_by_phone_code_and_password_and_wrong_ones_are_said(
    browser: Browser, api_database: Postgres, telegram: Telegram, tmp_path: Path
) -> None:
    telegram.store.set_password(PHONE, *rpc_auth.password_verifier(PASSWORD))
    async with (
        behind(api_database, telegram, tmp_path, api_database.port, logged_in=False) as stack,
        seat(browser, stack.url) as desk,
    ):
        page = desk.page
        await desk.sign_in(ADMIN)
        await expect(page.locator(".stage").first).to_contain_text("there is no session")
        await desk.go("Account")
        await expect(page.get_by_role("heading", name="Not logged in")).to_be_visible()
        await page.get_by_label("Phone number").fill(f"+{PHONE}")
        await page.keyboard.press("Enter")
        code = page.get_by_label("Code")
        await code.wait_for()
        await code.fill("1")
        await page.keyboard.press("Enter")
        await expect(page.locator(".step")).to_contain_text("the code is wrong: enter it again")
        sent = telegram.store.code(PHONE)
        assert sent is not None
        await code.fill(sent.code)
        await page.keyboard.press("Enter")
        password = page.get_by_label("Password of the second factor")
        await password.fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator(".step")).to_contain_text("the password is wrong: enter it again")
        await password.fill(PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Logged in and connected")).to_be_visible()
        text = await page.content()
        assert not [secret for secret in (PHONE, PASSWORD, sent.code) if secret in text]
        await stack.gateway.complete()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("light", 1280)])
async def test_every_page_suits_its_screen_and_a_screen_reader(
    browser: Browser, stack: Stack, data: Data, scheme: str, width: int
) -> None:
    data.message(1, "https://example.org/" + "a-very-long-word" * 20)
    fail(data, "signals", 1, "UnicodeDecodeError: " + "x" * 200)
    for number in range(40):
        stack.post(text(number), number % 3)
        state.MESSAGES.labels("published").inc()
        state.LATENCY.observe(0.012)
        await asyncio.sleep(0.05)
    async with seat(browser, stack.url, color_scheme=scheme, viewport={"width": width, "height": 740}) as desk:
        await desk.page.goto(stack.url)
        assert await desk.violations() == []
        await desk.sign_in(ADMIN)
        for title in PAGES:
            await desk.go(title)
            if width == 360:
                await desk.picture(f"console-phone-{title.lower()}-{scheme}", whole=False)
            for details in await desk.page.locator("details").all():
                await details.evaluate("shown => { shown.open = true }")
            assert not await desk.scrolls_sideways(), title
            assert await desk.violations() == [], title


async def test_what_is_away_is_said_on_every_page(
    browser: Browser, api_database: Postgres, link: Cable, tmp_path: Path
) -> None:
    client = GatewayClient(GatewayConfig(port=free_port()))
    async with (
        application(api_database, link.port, tmp_path, gateway=client, worker=WorkerConfig(port=free_port())) as made,
        serving(made.application()) as url,
        seat(browser, url) as desk,
    ):
        await link.cut()
        await desk.sign_in(ADMIN)
        await expect(desk.page.get_by_role("region", name="The API cannot do its work")).to_contain_text("pgbouncer")
        await expect(desk.page.locator(".stage").first).to_contain_text("The gateway: it cannot be reached")
        for title, words in (
            ("Channels", "The registry cannot be shown. The database does not answer"),
            ("Messages", "Messages cannot be shown. The database does not answer"),
            ("Failures", "Failures cannot be shown. The database does not answer"),
            ("Account", "The account cannot be shown. The gateway: it cannot be reached"),
        ):
            await desk.go(title)
            await expect(desk.page.get_by_role("main")).to_contain_text(words)
        await link.mend()
        await desk.go("Failures")
        async with asyncio.timeout(30):  # the pool tries again less and less often
            while "cannot be shown" in await desk.page.content():
                await desk.page.reload()
    await client.close()


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(re.escape(words))
