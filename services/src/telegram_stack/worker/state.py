"""What a worker tells about itself: links, figures, and what became of each batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from telegram_stack.events import utc_now
from telegram_stack.observability.metrics import BATCH_BUCKETS, LATENCY_BUCKETS

if TYPE_CHECKING:
    from telegram_stack.worker.broker import Delivery
    from telegram_stack.worker.processing import Outcome

_log = logging.getLogger(__name__)

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

for _status in ("published", "ignored", "deleted", "retrying", "failed"):
    MESSAGES.labels(_status)  # a counter that begins at 1 hides its first increase

RETRY_LIMIT = 2.0
"""Seconds between two attempts at most: a longer pause would outlast a restart of what is away."""


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


def count(batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
    """Count and log what was committed of `batch`."""
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
