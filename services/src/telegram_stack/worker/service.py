"""The worker's loop: subscribe, take a batch, commit it, settle it; wait out whatever is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.events import utc_now
from telegram_stack.lingering import Linger
from telegram_stack.observability.backoff import Backoff
from telegram_stack.observability.metrics import BATCH_BUCKETS, LATENCY_BUCKETS
from telegram_stack.topology import retry_queue
from telegram_stack.worker.broker import BrokerUnavailableError, Delivery, Subscription
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.processing import Outcome, Processor

_log = logging.getLogger(__name__)

_RETRY_LIMIT = 2.0
"""Seconds between two attempts at most: a longer pause would outlast a restart of what is away."""

MESSAGES = Counter("telegram_worker_messages_total", "Messages whose state was committed, by that state", ["status"])
DUPLICATES = Counter(
    "telegram_worker_duplicates_total", "Deliveries that changed nothing: known or superseded versions"
)
POISON = Counter("telegram_worker_poison_total", "Deliveries that were no event or that the database refused")
BATCHES = Histogram("telegram_worker_batch_messages", "Deliveries a batch", buckets=BATCH_BUCKETS)
COMMITS = Histogram("telegram_worker_commit_seconds", "Time to commit a batch", buckets=LATENCY_BUCKETS)
LATENCY = Histogram(
    "telegram_worker_latency_seconds", "From the gateway's receipt of a message to its committed state",
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
DATABASE_UP = Gauge("telegram_worker_database_up", "1 while batches can be committed")
QUEUE_UP = Gauge("telegram_worker_queue_up", "1 while the queue is consumed")


@dataclass
class Link:
    """Whether something the worker depends on is there; `reason` says why not."""

    gauge: Gauge
    what: str
    reason: str | None = "not yet connected"

    def up(self) -> None:
        """It answers."""
        if self.reason is not None:
            _log.info("%s is available", self.what)
        self.reason = None
        self.gauge.set(1)

    def down(self, reason: str) -> None:
        """It does not; said once for each new reason."""
        if reason != self.reason:
            _log.warning("%s is unavailable: %s", self.what, reason)
        self.reason = reason
        self.gauge.set(0)


class Worker:
    """One consumer of one queue.

    For `hold_seconds` messages stay unacknowledged while the database is away, then the broker gets them back.
    """

    def __init__(
        self,
        config: WorkerConfig,
        processor: Processor,
        subscribe: Callable[[], Awaitable[Subscription]],
        hold_seconds: float = 60.0,
    ) -> None:
        self._config = config
        self._processor = processor
        self._subscribe = subscribe
        self._hold_seconds = hold_seconds
        self._linger = Linger(config.linger_ms / 1000)
        self.database = Link(DATABASE_UP, "the database")
        self.queue = Link(QUEUE_UP, "the queue")

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish what was handed over. Cancelling gives it back to the queue."""
        backoff = Backoff(first=0.2, limit=_RETRY_LIMIT)
        while not stop.is_set():
            try:
                subscription = await self._subscribe()
            except BrokerUnavailableError as error:
                self.queue.down(str(error))
                await _wait(stop, backoff.next())
                continue
            self.queue.up()
            backoff.reset()
            try:
                await self._consume(subscription, stop)
            finally:
                await subscription.close()
            if not stop.is_set():
                self.queue.down(subscription.lost or "the subscription ended")
                await _wait(stop, backoff.next())

    async def _consume(self, subscription: Subscription, stop: asyncio.Event) -> None:
        cancel = asyncio.create_task(_after(stop, subscription.cancel))
        try:
            finished = time.monotonic()
            while batch := await subscription.batch(self._config.batch_size, self._linger.seconds):
                outcomes = await self._commit(batch, subscription, stop)
                await self._settle(batch, outcomes, subscription)
                now = time.monotonic()
                self._linger.observe(len(batch), now - finished)
                finished = now
        except BrokerUnavailableError as error:
            self.queue.down(str(error))
        finally:
            cancel.cancel()

    async def _commit(
        self, batch: Sequence[Delivery], subscription: Subscription, stop: asyncio.Event
    ) -> list[Outcome]:
        """Write `batch`, however long the database is away: it stays in memory, and is the probe for its return.

        After a while the broker gets the messages back, once: it would close the channel in the end, and each
        redelivery counts towards the limit.
        """
        backoff = Backoff(first=0.1, limit=_RETRY_LIMIT)
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
                _count(batch, outcomes)
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


def _count(batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
    now = utc_now()
    marks = [mark for outcome in outcomes for mark in outcome.marks]
    poison = [item for outcome in outcomes for item in outcome.poison]
    BATCHES.observe(len(batch))
    POISON.inc(len(poison))
    DUPLICATES.inc(len(batch) - len(marks) - len(poison))
    for mark in marks:
        MESSAGES.labels(mark.status).inc()
        LATENCY.observe(max(0.0, (now - mark.event.received_at).total_seconds()))
        if mark.status in {"retrying", "failed"}:
            _log.warning(
                "a message is %s",
                "tried again" if mark.status == "retrying" else "given up",
                extra={
                    "channel_id": mark.event.channel_id,
                    "message_id": mark.event.message_id,
                    "attempt": mark.delivery.attempt,
                    "reason": mark.metadata.get("reason", "cannot be stored"),
                },
            )
    for item in poison:
        _log.warning(
            "a delivery is given up",
            extra={"bytes": len(item.delivery.body), "channel_id": item.delivery.headers.get("x-channel-id")},
        )


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _after(event: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    await event.wait()
    await act()
