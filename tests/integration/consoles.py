"""The console as people have it: the API over real servers, and a headless Chromium before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from telethon.crypto import rsa
from tests.integration import npm
from tests.integration.apis import application
from tests.integration.gateways import KEY, Gateway, ListSink, ready_session, running
from tests.integration.servers import ROOT, Postgres, free_port, until
from tests.integration.test_api_gateway import port_of
from tests.integration.test_gateway_sync import NO_HISTORY

from telegram_stack.api.config import ComponentConfig, WorkerConfig
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.observability.http import metrics_response, serve
from telegram_stack.simulator import objects
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.sinks.base import Sink
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Channel
from telegram_stack.telegram.client import Server
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.worker import state

CHROMIUM = shutil.which("chromium")
PATIENCE = 30_000
"""Milliseconds that a page may take where the machine has much else to do."""
expect.set_options(timeout=PATIENCE)
PICTURES = os.environ.get("TELEGRAM_STACK_PICTURES", "")
"""Where tests put pictures of the pages; they make none where it is empty."""
WANTED = (
    "console-overview", "console-messages", "console-failures", "console-channels",
    "console-phone-overview-dark",
)  # fmt: skip
_AXE = ROOT / "tests" / "integration" / "axe"


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Where `app` serves."""
    ports: list[int] = []
    server = asyncio.create_task(serve(app, "127.0.0.1", 0, ports.append))
    await until(lambda: ports)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser that reaches this machine only: there is no internet for it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Seat:
    """Somebody before a browser. `asked` are the addresses of all requests, `said` is what its console complains of."""

    url: str
    context: BrowserContext
    page: Page
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def sign_in(self, token: str) -> None:
        """With the keyboard alone."""
        await self.page.goto(self.url)
        await self.page.keyboard.type(token)
        await self.page.keyboard.press("Enter")
        await self.page.get_by_role("heading", name="Overview").wait_for()

    async def go(self, title: str) -> None:
        """To another page, by its name."""
        await self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=title).click()
        await self.page.get_by_role("heading", name=title, level=1).wait_for()

    async def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        wider: bool = await self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return wider

    async def violations(self) -> list[str]:
        """What axe has against the page as it is."""
        script = (npm.installed(_AXE) / "node_modules" / "axe-core" / "axe.min.js").read_text()
        found: dict[str, Any] = await self.page.evaluate(f"{script}; axe.run()")
        return [
            f"{problem['id']}: {node['html'][:200]} {node['failureSummary']}"
            for problem in found["violations"]
            for node in problem["nodes"]
        ]

    async def picture(self, name: str, *, whole: bool = True) -> None:
        """Keep a picture of the page, `whole` or what the window shows, where it is one of `WANTED`."""
        if PICTURES and name in WANTED:
            await self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)


@contextlib.asynccontextmanager
async def seat(browser: Browser, url: str, **settings: Any) -> AsyncIterator[Seat]:
    """A browser's window of its own; afterwards it must have asked nobody else, and have complained of nothing."""
    settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en", **settings}
    context = await browser.new_context(**settings)
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    taken = Seat(url, context, page)
    context.on("request", lambda request: taken.asked.append(request.url))
    page.on(
        "console",
        lambda message: taken.said.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: taken.said.append(str(error)))
    try:
        yield taken
    finally:
        await context.close()
    elsewhere = {address for address in taken.asked if not address.startswith(f"{url}/")}
    # A refusal is told by the page; Chromium writes it down as well.
    complaints = [words for words in taken.said if "Failed to load resource" not in words]
    assert not elsewhere and not complaints, f"asked {elsewhere}, complained of {complaints}"


@dataclass
class Stack:
    """What stands behind a console."""

    url: str
    gateway: Gateway
    telegram: Telegram

    def post(self, words: str, channel: int = 0) -> int:
        """Post into a channel at Telegram; returns its marked id."""
        chosen = list(self.telegram.store.channels)[channel]
        [message] = self.telegram.post([Draft(chosen, words)])
        return marked(message.channel_id)


@contextlib.asynccontextmanager
async def behind(
    database: Postgres, telegram: Telegram, folder: Path, port: int, *, logged_in: bool = True, **settings: Any
) -> AsyncIterator[Stack]:
    """The API with a gateway that stores what the simulated Telegram posts, and with a worker's figures."""
    assert telegram._listener is not None
    (folder / "gateway").mkdir(mode=0o700)
    session = SessionFile(folder / "gateway" / "session", KEY)
    if logged_in:
        session.write(ready_session(telegram))
    host, telegram_port = telegram._listener.sockets[0].getsockname()[:2]
    server = Server(host, telegram_port, objects.DC_ID, telegram.store.server_key.public_pem)
    rsa.add_key(telegram.store.server_key.public_pem, old=False)
    with database.connect() as connection:  # of channels of the same numbers in other tests
        for table in ("messages", "message_keys", "tombstones", "erased", "channels"):
            ids = list(map(marked, telegram.store.channels))
            connection.execute(f"DELETE FROM telegram.{table} WHERE channel_id = ANY (%s)".encode(), [ids])  # noqa: S608
    (folder / "ingest").write_text(database.password)
    ingest = DatabaseConfig(user="telegram_ingest", password_file=str(folder / "ingest"), port=database.port)
    pool = await open_pool(ingest, "console")
    channels: dict[int, Channel] = {}
    sinks: list[Sink] = [DatabaseSink(pool, lambda: channels, register=True), ListSink("queue"), ListSink("cache")]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        gateway = await stack.enter_async_context(running(session, sinks, limits=NO_HISTORY, server=server))
        client = await stack.enter_async_context(port_of(gateway, folder, connected=logged_in, own=session))
        worker = int((await stack.enter_async_context(serving(Starlette(routes=_WORKER)))).rpartition(":")[2])
        components = (
            ComponentConfig(name="Signal worker", host="127.0.0.1", port=worker, path="/health"),
            ComponentConfig(name="Grafana", host="127.0.0.1", port=free_port(), required=False),
            *settings.pop("components", ()),
        )
        made = await stack.enter_async_context(
            application(
                database, port, folder, gateway=client, worker=WorkerConfig(port=worker), components=components,
                **settings,
            )
        )  # fmt: skip
        url = await stack.enter_async_context(serving(made.application()))
        if logged_in:
            await gateway.complete()
            channels.update(gateway.channels.known)
        yield Stack(url, gateway, telegram)


async def _well(_request: Request) -> Response:
    return Response("{}")


async def _figures(_request: Request) -> Response:
    registry = CollectorRegistry()
    for metric in (state.MESSAGES, state.LATENCY):
        registry.register(metric)
    return metrics_response(registry)


_WORKER = [Route("/health", _well), Route("/metrics", _figures)]
