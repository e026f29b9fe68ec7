"""Open-loop load: messages at a set rate, whether or not anybody keeps up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from telegram_stack.simulator import texts
from telegram_stack.simulator.model import Draft, Message
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


@dataclass(frozen=True, slots=True)
class Changes:
    """After each so many messages an earlier one is edited, or deleted; 0: none."""

    edit_every: int = 0
    delete_every: int = 0


NO_CHANGES = Changes()


class Load:
    """One run: `count` messages at `rate` a second, or without end when `count` is None."""

    def __init__(
        self,
        server: Server,
        channel_ids: Sequence[int],
        rate: float,
        count: int | None,
        changes: Changes = NO_CHANGES,
    ) -> None:
        self.rate = rate
        self.count = count
        self.sent = 0
        self.edited = 0
        self.deleted = 0
        self._changes = changes
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
                    posted = self._server.post(drafts(self._server, self._channel_ids, due - self.sent))
                    for number, message in enumerate(posted, self.sent + 1):
                        self._change(number, message)
                    self.sent = due
                await asyncio.sleep(max(_TICK, self._started + self.sent / self.rate - time.monotonic()))
        finally:
            self._ended = time.monotonic()

    def _change(self, number: int, message: Message) -> None:
        """What happens after message `number`: to itself an edit, to the one before it in its channel a deletion."""
        if self._changes.edit_every and number % self._changes.edit_every == 0:
            self._server.edit(message.channel_id, message.id, f"{message.text}\n(editado)")
            self.edited += 1
        if self._changes.delete_every and number % self._changes.delete_every == 0:
            self.deleted += len(self._server.delete(message.channel_id, [message.id - 1]))
