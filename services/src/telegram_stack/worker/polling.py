"""The loop that asks for what is to be done: the cache first, the database on a miss and regularly in any case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from telegram_stack import events
from telegram_stack.cache import CacheUnavailableError
from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.events import Event
from telegram_stack.observability.backoff import Backoff
from telegram_stack.observability.metrics import LATENCY_BUCKETS
from telegram_stack.program import rest
from telegram_stack.topology import RETRY_SECONDS
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.cache import ConsumerCache, Key
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.processing import Outcome, Processor
from telegram_stack.worker.state import COMMITS, RETRY_LIMIT, Link, count
from telegram_stack.worker.stored import Page, Stored

_log = logging.getLogger(__name__)

HITS = Counter("telegram_worker_cache_hits_total", "Polls that the cache answered by itself")
MISSES = Counter(
    "telegram_worker_cache_misses_total",
    "Polls that needed the database: the cache was emptied, had evicted a message, or did not answer", ["reason"],
)  # fmt: skip
FALLBACKS = Counter(
    "telegram_worker_database_polls_total", "Polls of the database: after a miss, for the regular look, for a retry",
    ["reason"],
)  # fmt: skip
POLLED = Counter("telegram_worker_polled_messages_total", "Messages that a poll has brought", ["source"])
LAST_POLL = Gauge("telegram_worker_last_poll_timestamp_seconds", "When the last poll was done; 0 before the first")
POLLS = Histogram("telegram_worker_poll_seconds", "Time for a poll's answer", ["source"], buckets=LATENCY_BUCKETS)

for _reason in ("unavailable", "evicted", "cold"):
    MISSES.labels(_reason)

_LOST_RETRY_SECONDS = 120.0
"""How long behind its time a retry is still expected from its wait queue."""


class Poller:
    """Polls for one consumer. `queue` is the link whose messages it leaves to the broker while that is there."""

    def __init__(
        self,
        config: WorkerConfig,
        processor: Processor,
        stored: Stored,
        *,
        cache: ConsumerCache | None,
        database: Link,
        queue: Link | None,
    ) -> None:
        self._limit = config.batch_size
        self._poll_seconds = config.poll_seconds
        self._net_seconds = config.net_seconds
        self._processor = processor
        self._stored = stored
        self._cache = cache
        self._database = database
        self._queue = queue
        self._look_at = 0.0  # when the database is asked in any case
        self._retry_at = float("inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop` is set; a batch that was begun is finished."""
        backoff = Backoff(first=0.2, limit=RETRY_LIMIT)
        while not stop.is_set():
            try:
                more = await self.poll()
            except DatabaseUnavailableError as error:
                self._database.down(str(error))
                await rest(stop, backoff.next())
                continue
            self._database.up()
            LAST_POLL.set_to_current_time()
            backoff.reset()
            last = time.monotonic()
            while not more and not stop.is_set() and (left := self._next(last) - time.monotonic()) > 0:
                await rest(stop, min(left, 1.0))  # the queue may go meanwhile

    async def poll(self) -> bool:
        """Poll once. True when there is more to do at once. Raises DatabaseUnavailableError."""
        more, reason = await self._from_cache()
        now = time.monotonic()
        if reason is None and now >= self._retry_at:
            reason = "retry"
        if reason is None and now >= self._look_at:
            reason = "regular"
        if reason is not None:
            FALLBACKS.labels(reason).inc()
            more = await self._from_database() or more
        return more

    def _next(self, last: float) -> float:
        return min(last + (self._net_seconds if self._queued else self._poll_seconds), self._retry_at)

    @property
    def _queued(self) -> bool:
        return self._queue is not None and self._queue.reason is None

    async def _from_cache(self) -> tuple[bool, str | None]:
        """Do what the cache has. Returns whether there is more, and why the database has to be asked, if it has to."""
        if self._cache is None:
            return False, "miss"
        started = time.perf_counter()
        try:
            pending = await self._cache.pending(self._limit)
        except CacheUnavailableError:
            MISSES.labels("unavailable").inc()
            return False, "miss"
        POLLS.labels("cache").observe(time.perf_counter() - started)
        # First of all what is there; the database is not needed for its reading.
        done = await self._do([self._delivery(event, body) for event, body in pending.messages], "cache")
        more = done and pending.more
        if pending.evicted:
            MISSES.labels("evicted").inc()
            await self._evicted(pending.evicted)
            return more, "miss"
        if not pending.complete:
            MISSES.labels("cold").inc()
            return more, "miss"
        HITS.inc()
        return more, None

    async def _evicted(self, keys: Sequence[Key]) -> None:
        found = await self._stored.by_key(keys)
        await self._do([self._delivery(event) for event in found], "database")
        # What the database does not have was deleted, or is not there yet: then it comes with a later poll of it.
        gone = set(keys) - {event.key for event in found}
        if self._cache and gone:
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.settle(gone, ())

    async def _from_database(self) -> bool:
        started = time.perf_counter()
        page = await self._stored.page(self._limit, _LOST_RETRY_SECONDS if self._queued else 0.0)
        POLLS.labels("database").observe(time.perf_counter() - started)
        self._look_at = time.monotonic() + self._net_seconds
        self._retry_at = float("inf")
        found = [self._delivery(event) for event in page.unprocessed]
        await self._warm(page, found)
        retries = [self._delivery(event, attempt=page.attempts.get(event.key, 1)) for event in page.retries]
        more = await self._do(found, "database") and len(found) == self._limit
        more = (await self._do(retries, "database") and len(retries) == self._limit) or more
        if more:
            self._look_at = 0.0  # the cache need not know of what is behind this page
        return more

    async def _warm(self, page: Page, found: Sequence[Delivery]) -> None:
        if self._cache:
            messages = [(event, delivery.body) for event, delivery in zip(page.unprocessed, found, strict=True)]
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.warm(messages, complete=len(messages) < self._limit)

    async def _do(self, deliveries: Sequence[Delivery], source: str) -> bool:
        """Commit what is not left to the queue. True when something was done that had not been."""
        mine = [delivery for delivery in deliveries if not self._left_to_the_queue(delivery)]
        if not mine:
            return False
        started = time.perf_counter()
        outcomes = await self._processor.process(mine, ask_cache=source == "cache")
        COMMITS.observe(time.perf_counter() - started)
        POLLED.labels(source).inc(len(mine))
        count(mine, outcomes)
        self._note_retries(outcomes)
        await self._processor.settle(outcomes)
        return any(outcome.marks for outcome in outcomes)

    def _left_to_the_queue(self, delivery: Delivery) -> bool:
        """While the broker is there it has this long to bring a message by itself."""
        age = (events.utc_now() - delivery.event.received_at).total_seconds() if delivery.event else 0.0
        return self._queued and age < self._net_seconds

    def _note_retries(self, outcomes: Sequence[Outcome]) -> None:
        """Without a broker there are no wait queues: the database is asked again when a retry is due."""
        if self._queued:
            return
        for outcome in outcomes:
            for mark in outcome.marks:
                if mark.status == "retrying":
                    due = time.monotonic() + RETRY_SECONDS[mark.delivery.attempt - 1] + 0.01
                    self._retry_at = min(self._retry_at, due)

    @staticmethod
    def _delivery(event: Event, body: bytes | None = None, attempt: int = 1) -> Delivery:
        return Delivery(0, body or events.encode(event), attempt, event=event)
