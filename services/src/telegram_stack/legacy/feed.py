"""The loop: take what has changed, write it to the legacy database, forget it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client import Counter, Gauge

from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.legacy.old_side import Fed, OldSide, RefusedError
from telegram_stack.legacy.outbox import Change, Outbox, State
from telegram_stack.observability.backoff import Backoff
from telegram_stack.program import rest

_log = logging.getLogger(__name__)

T = TypeVar("T")

BACKLOG = Gauge("telegram_legacy_feed_backlog", "Changes that wait for the legacy database")
AGE = Gauge("telegram_legacy_feed_age_seconds", "How long the oldest of them has waited")
UP = Gauge("telegram_legacy_feed_up", "1 while this side answers", ["side"])
ROWS = Counter("telegram_legacy_feed_rows_total", "Rows written to the legacy database", ["kind"])
REFUSED = Counter("telegram_legacy_feed_refused_total", "Attempts to write a message that the legacy database refused")

DATABASE, LEGACY = "database", "legacy"


@dataclass
class Progress:
    """What the last attempts told. `away` has the reason for each side that does not answer."""

    away: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None

    async def asked(self, side: str, answer: Awaitable[T]) -> T:
        """`answer` of `side`, noted; raises DatabaseUnavailableError."""
        try:
            found = await answer
        except DatabaseUnavailableError as error:
            if self.away.get(side) != str(error):
                _log.warning("the %s side is unavailable: %s", side, error)
            self.away[side] = str(error)
            UP.labels(side).set(0)
            raise
        if self.away.pop(side, None):
            _log.info("the %s side is available", side)
        UP.labels(side).set(1)
        return found


class Feed:
    """What a kill leaves half done is done again: the legacy database is written first, and takes nothing twice."""

    def __init__(self, outbox: Outbox, old_side: OldSide, batch_size: int) -> None:
        self._outbox = outbox
        self._old_side = old_side
        self._batch_size = batch_size
        self.progress = Progress()

    async def run(self, stop: asyncio.Event, poll_seconds: float) -> None:
        """Feed until `stop` is set; a batch that is under way is finished."""
        backoff = Backoff(first=0.2, limit=5.0)
        while not stop.is_set():
            try:
                fed = await self.step()
            except DatabaseUnavailableError:
                await rest(stop, backoff.next())
                continue
            if self.progress.refusal:
                await rest(stop, backoff.next())
                continue
            backoff.reset()
            if not fed:
                await rest(stop, poll_seconds)

    async def step(self) -> int:
        """Feed one batch and return how many messages it had. What is refused waits on, `progress` says why.

        Raises DatabaseUnavailableError.
        """
        state = await self.state()
        changes = await self.progress.asked(DATABASE, self._outbox.first(self._batch_size)) if state.backlog else []
        if not changes:
            self.progress.refusal = None
            return 0
        refusals: list[str] = []
        fed = await self._apply(changes, state.last_row_id, refusals)
        self.progress.refusal = refusals[0] if refusals else None
        await self.progress.asked(DATABASE, self._outbox.remove(fed))
        return len(fed)

    async def state(self) -> State:
        """How the feed stands. Raises DatabaseUnavailableError."""
        state = await self.progress.asked(DATABASE, self._outbox.state())
        BACKLOG.set(state.backlog)
        AGE.set(state.age)
        return state

    async def _apply(self, changes: Sequence[Change], last_row_id: int, refusals: list[str]) -> list[Change]:
        """Write `changes` and return what may be forgotten, with what is not here any more."""
        known = [change for change in changes if change.document]
        gone = [change for change in changes if not change.document]
        try:
            if known:
                _count(await self.progress.asked(LEGACY, self._old_side.apply(known, last_row_id)))
        except RefusedError as error:
            if len(known) > 1:  # one of them is bad; each by itself shows which
                alone = [await self._apply([change], last_row_id, refusals) for change in known]
                return gone + [change for fed in alone for change in fed]
            key = {name: known[0].document[name] for name in ("channel_id", "message_id")}
            _log.error("the legacy database refuses a message: %s", error, extra=key)
            REFUSED.inc()
            refusals.append(f"channel {key['channel_id']} message {key['message_id']}: {error}")
            return gone
        return [*changes]


def _count(fed: Fed) -> None:
    for kind, rows in fed._asdict().items():
        ROWS.labels(kind).inc(rows)
