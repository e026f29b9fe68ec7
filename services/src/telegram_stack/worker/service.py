"""The loop behind the queue: subscribe, take a batch, commit it, settle it; wait out whatever is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.lingering import Linger
from telegram_stack.observability.backoff import Backoff
from telegram_stack.program import rest
from telegram_stack.topology import retry_queue
from telegram_stack.worker.broker import BrokerUnavailableError, Delivery, Subscription
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.processing import Outcome, Processor
from telegram_stack.worker.state import COMMITS, QUEUE_UP, RETRY_LIMIT, Link, count


class Worker:
    """One consumer of one queue.

    For `hold_seconds` messages stay unacknowledged while the database is away, then the broker gets them back.
    """

    def __init__(
        self,
        config: WorkerConfig,
        processor: Processor,
        subscribe: Callable[[], Awaitable[Subscription]],
        database: Link,
        hold_seconds: float = 60.0,
    ) -> None:
        self._config = config
        self._processor = processor
        self._subscribe = subscribe
        self._hold_seconds = hold_seconds
        self._linger = Linger(config.linger_ms / 1000)
        self.database = database
        self.queue = Link(QUEUE_UP, "the queue")

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish what was handed over. Cancelling gives it back to the queue."""
        backoff = Backoff(first=0.2, limit=RETRY_LIMIT)
        while not stop.is_set():
            try:
                subscription = await self._subscribe()
            except BrokerUnavailableError as error:
                self.queue.down(str(error))
                await rest(stop, backoff.next())
                continue
            self.queue.up()
            backoff.reset()
            try:
                await self._consume(subscription, stop)
            finally:
                await subscription.close()
            if not stop.is_set():
                self.queue.down(subscription.lost or "the subscription ended")
                await rest(stop, backoff.next())

    async def _consume(self, subscription: Subscription, stop: asyncio.Event) -> None:
        cancel = asyncio.create_task(_after(stop, subscription.cancel))
        told: asyncio.Task[None] | None = None  # the cache, while the next batch is written
        try:
            finished = time.monotonic()
            while batch := await subscription.batch(self._config.batch_size, self._linger.seconds):
                outcomes = await self._commit(batch, subscription, stop)
                await self._settle(batch, outcomes, subscription)
                if told:
                    await told
                told = asyncio.create_task(self._processor.settle(outcomes))
                now = time.monotonic()
                self._linger.observe(len(batch), now - finished)
                finished = now
        except BrokerUnavailableError as error:
            self.queue.down(str(error))
        finally:
            cancel.cancel()
            if told:
                await told

    async def _commit(
        self, batch: Sequence[Delivery], subscription: Subscription, stop: asyncio.Event
    ) -> list[Outcome]:
        """Write `batch`, however long the database is away: it stays in memory, and is the probe for its return.

        After a while the broker gets the messages back, once: it would close the channel in the end, and each
        redelivery counts towards the limit.
        """
        backoff = Backoff(first=0.1, limit=RETRY_LIMIT)
        started = time.monotonic()
        while True:
            attempt = time.monotonic()
            try:
                outcomes = await self._processor.process(batch)
            except DatabaseUnavailableError as error:
                self.database.down(str(error))
                if time.monotonic() - started > self._hold_seconds:
                    await subscription.close()
                    self.queue.down("given back until the database returns")
                    if stop.is_set():
                        return []
                await asyncio.sleep(backoff.next())
            else:
                self.database.up()
                COMMITS.observe(time.monotonic() - attempt)
                count(batch, outcomes)
                return outcomes

    async def _settle(self, batch: Sequence[Delivery], outcomes: Sequence[Outcome], subscription: Subscription) -> None:
        rejected = {delivery.tag for outcome in outcomes for delivery in outcome.given_up}
        for outcome in outcomes:
            for delivery, delay in outcome.retries:
                await subscription.wait_in(retry_queue(self._config.consumer, delay), delivery)
        for tag in sorted(rejected):
            subscription.dead_letter(tag)
        accepted = [delivery.tag for delivery in batch if delivery.tag not in rejected]
        if accepted:
            subscription.acknowledge_through(max(accepted))


async def _after(event: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    await event.wait()
    await act()
