"""Open-loop load: messages at a set rate, whether or not anybody keeps up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from telegram_stack.simulator import texts
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server

_TICK = 0.005
_PHOTO_EVERY = 50


def drafts(server: Server, channel_ids: Sequence[int], count: int) -> list[Draft]:
    """The next `count` messages, dealt out to the channels in turn, every fiftieth with a photo."""
    first = server.store.sequence + 1
    return [
        Draft(channel_ids[number % len(channel_ids)], texts.text(number), number % _PHOTO_EVERY == 0)
        for number in range(first, first + count)
    ]


class Load:
    """One run: `count` messages at `rate` a second, or without end when `count` is None."""

    def __init__(self, server: Server, channel_ids: Sequence[int], rate: float, count: int | None) -> None:
        self.rate = rate
        self.count = count
        self.sent = 0
        self.channels = len(channel_ids)
        self._server = server
        self._channel_ids = channel_ids
        self._started = time.monotonic()
        self._ended: float | None = None
        self._task = asyncio.create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return not self._task.done()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended or time.monotonic()) - self._started

    async def stop(self) -> None:
        """End it now. Raises what broke it, if anything did."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error

    async def _run(self) -> None:
        try:
            while self.count is None or self.sent < self.count:
                due = int((time.monotonic() - self._started) * self.rate) + 1
                due = due if self.count is None else min(due, self.count)
                if due > self.sent:
                    self._server.post(drafts(self._server, self._channel_ids, due - self.sent))
                    self.sent = due
                await asyncio.sleep(max(_TICK, self._started + self.sent / self.rate - time.monotonic()))
        finally:
            self._ended = time.monotonic()
