"""The broker's names and arguments: what gateway, worker and role declare alike.

Pure data. Exchanges and the queues of the exchanges belong to the publisher, the queues of a consumer to the consumer;
a declaration with other arguments than the existing object's is refused by the broker, so they stand here once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

EXCHANGE = "telegram.messages"
"""Topic exchange, routing key ``telegram.channel.{id}``."""
UNROUTABLE = "telegram.unroutable"
"""Alternate exchange of `EXCHANGE` (fanout) and its bounded queue, of the same name."""
DEAD_LETTER_EXCHANGE = "telegram.dlx"
DEAD_LETTER_QUEUE = "telegram.messages.dlq"
ALL_CHANNELS = "telegram.channel.*"

DELIVERY_LIMIT = 10
"""Deliveries of one message before a quorum queue gives it up to the dead-letter exchange."""
UNROUTABLE_MAX_LENGTH = 10_000
DEAD_LETTER_MAX_LENGTH = 100_000
RETRY_DELAYS_MS = {"1s": 1_000, "10s": 10_000, "60s": 60_000}
"""The wait queues of a consumer: suffix and fixed delay in milliseconds."""
RETRY_SECONDS = [milliseconds / 1000 for milliseconds in RETRY_DELAYS_MS.values()]
"""The same for who waits without a broker: before the second attempt, the third, …"""

_CONSUMER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """Messages of `exchange` that match `routing_key` go to `queue`."""

    exchange: str
    queue: str
    routing_key: str


Declaration = Exchange | Queue | Binding


def publisher_topology() -> Iterator[Declaration]:
    """What the gateway needs to publish, in the order of declaration."""
    yield Exchange(UNROUTABLE, "fanout")
    yield Exchange(EXCHANGE, "topic", {"alternate-exchange": UNROUTABLE})
    yield Exchange(DEAD_LETTER_EXCHANGE, "fanout")
    # The oldest go first when nobody looks: the spool and the database still have them.
    yield Queue(
        UNROUTABLE, {"x-queue-type": "quorum", "x-max-length": UNROUTABLE_MAX_LENGTH, "x-overflow": "drop-head"}
    )
    yield Binding(UNROUTABLE, UNROUTABLE, "")
    yield Queue(
        DEAD_LETTER_QUEUE,
        {"x-queue-type": "quorum", "x-max-length": DEAD_LETTER_MAX_LENGTH, "x-overflow": "drop-head"},
    )
    yield Binding(DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, "")


def consumer_queue(consumer: str) -> str:
    """The queue of `consumer`; raises ValueError for a name that cannot stand in a queue's name."""
    if not _CONSUMER_NAME.fullmatch(consumer):
        raise ValueError(
            f"consumer name {consumer!r} is not usable: lower-case letters, digits, - and _, 63 characters at most"
        )
    return f"telegram.consumer.{consumer}"


def retry_queue(consumer: str, delay: str) -> str:
    """The wait queue of `consumer` for `delay`, a key of `RETRY_DELAYS_MS`."""
    return f"{consumer_queue(consumer)}.retry.{delay}"


def consumer_topology(consumer: str) -> Iterator[Declaration]:
    """The queue of `consumer`, bound to all channels, with its wait queues."""
    queue = consumer_queue(consumer)
    yield Queue(
        queue,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # what at-least-once dead-lettering asks for
        },
    )
    yield Binding(EXCHANGE, queue, ALL_CHANNELS)
    for delay, milliseconds in RETRY_DELAYS_MS.items():
        yield Queue(
            retry_queue(consumer, delay),
            {
                "x-queue-type": "quorum",
                "x-message-ttl": milliseconds,
                # Back by the default exchange, so to this consumer's queue only.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
