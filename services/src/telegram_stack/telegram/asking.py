"""Requests to Telegram that wait: floods method by method, everyday trouble with growing delays."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from telethon import errors

from telegram_stack.observability.backoff import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")


class FloodReport(Protocol):
    """Who wants to know of the pauses that Telegram asks for."""

    def flood_wait(self, method: str, seconds: int) -> None:
        """`method` may be used again in so many seconds."""


class FloodWaits:
    """Which methods Telegram has asked to leave alone, and until when. It outlives a connection."""

    def __init__(self, report: FloodReport) -> None:
        self._report = report
        self._until: dict[str, float] = {}

    def note(self, error: errors.FloodWaitError) -> str:
        """Telegram asks for a pause; returns the method's name."""
        method = method_of(error.request)
        self._until[method] = time.monotonic() + error.seconds
        self._report.flood_wait(method, error.seconds)
        log.warning("Telegram asks to leave %s alone for %d s", method, error.seconds, extra={"seconds": error.seconds})
        return method

    def remaining(self, method: str) -> float:
        """Seconds until `method` may be used."""
        return max(0.0, self._until.get(method, 0.0) - time.monotonic())

    def waiting(self) -> Mapping[str, float]:
        """The methods that must wait now, with their seconds."""
        return {method: seconds for method in self._until if (seconds := self.remaining(method))}


class Telegram:
    """Asks until there is an answer. A flood wait holds those who use the same method, and nobody else."""

    def __init__(self, client: Any, floods: FloodWaits) -> None:
        """`client` is a connected Telethon client whose ``flood_sleep_threshold`` is 0."""
        self.client = client
        self.floods = floods

    async def ask(self, request: Any) -> Any:
        """The answer to a TL request. Raises what Telegram refuses for good, and what ends the connection."""
        return await self.patiently(method_of(request), lambda: self.client(request))

    async def patiently(self, method: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, which uses `method`."""
        backoff = Backoff(first=1.0, limit=60.0)
        while True:
            await asyncio.sleep(self.floods.remaining(method))
            try:
                return await work()
            except errors.FloodWaitError as error:
                self.floods.note(error)
            except (errors.ServerError, errors.TimedOutError, ValueError) as error:
                # Telethon raises ValueError when its own retries of a request are used up.
                log.warning("Telegram has trouble with %s: %s; it is asked again", method, error)
                await asyncio.sleep(backoff.next())


def method_of(request: Any) -> str:
    """A TL request's method as Telegram writes it, without its section: ``getHistory``."""
    name = type(request).__name__.removesuffix("Request")
    return name[:1].lower() + name[1:]
