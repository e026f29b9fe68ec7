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

from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from starlette.applications import Starlette
from tests.integration import npm
from tests.integration.servers import ROOT, until

from telegram_stack.observability.http import serve

CHROMIUM = shutil.which("chromium")
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
    page.set_default_timeout(10_000)
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
