"""The legacy path on a server with our settings: row by row in, a poll of 100 each five seconds, row by row out.

A message costs five statements: the gateway's insert and its mark of the push, the consumer's look for the same text,
its signal, and the update of the state. Tables are those of `benchmarks.database.legacy`, shape A.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import psycopg
from tests.integration.servers import Postgres

from benchmarks.database.data import Message, messages
from benchmarks.database.legacy import Legacy
from benchmarks.database.timing import Timings

POLL_SECONDS, POLL_ROWS = 5.0, 100
_SIGNALS = (
    "CREATE TABLE legacy.signals (id bigserial PRIMARY KEY, channel text, asset text, raw_message text,"
    " ingested_at timestamptz NOT NULL DEFAULT now())"
)
_POLL = (
    "SELECT channel_id, message_id, text, extract(epoch FROM received_at)::float8 FROM legacy.messages_a"
    " WHERE status = 'received' AND deleted_at IS NULL AND coalesce(metadata ->> 'processed_by', '') <> 'tp-capital'"
    " ORDER BY received_at LIMIT %s"
)
_KNOWN = "SELECT id FROM legacy.signals WHERE channel = %s AND raw_message = %s LIMIT 1"
_SIGNAL = "INSERT INTO legacy.signals (channel, asset, raw_message) VALUES (%s, 'PETR4', %s)"
_PUSHED = "UPDATE legacy.messages_a SET queued_at = now() WHERE message_id = %s"
_DONE = (
    "UPDATE legacy.messages_a SET status = 'published', published_at = now(),"
    """ metadata = metadata || '{"processed_by": "tp-capital"}' WHERE message_id = %s"""
)
STATEMENTS = 5.0


@dataclass(frozen=True)
class LegacyRun:
    """End to end at one rate, in milliseconds from the gateway's insert to the consumer's update."""

    rate: float
    sent: int
    done: int
    p50: float
    p99: float


@dataclass(frozen=True)
class LegacyCalls:
    """Single calls in milliseconds (p95), and how many messages a second go into the store at most."""

    poll: float
    dedup: float
    status: float
    store_rate: float


class LegacyPath:
    """Gateway and consumer, each with a connection of its own."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        # Numbers of their own: the legacy consumer names a message by its number alone, in whatever channel.
        self._stream = enumerate(messages(1_000_000, 200, datetime.now(UTC)), 1)
        with self._server.connect("postgres") as connection:
            Legacy(connection, "A").create(datetime.now(UTC))
            connection.execute(_SIGNALS)
            connection.execute("CREATE INDEX ON legacy.messages_a (message_id)")
            connection.execute("CREATE INDEX ON legacy.messages_a (received_at) WHERE status = 'received'")

    def _next(self) -> Message:
        number, message = next(self._stream)
        return message._replace(message_id=number)

    def calls(self, seconds: float = 10.0) -> LegacyCalls:
        """Fill as fast as it goes for `seconds`, then measure single calls with pauses of 5 ms."""
        with self._server.connect("postgres") as connection:
            gateway = Legacy(connection, "A")
            begun, stored = time.monotonic(), 0
            while time.monotonic() < begun + seconds:
                self._store(connection, gateway, self._next())
                stored += 1
            rate = stored / (time.monotonic() - begun)
            poll, dedup, status = Timings(), Timings(), Timings()
            for _ in range(100):
                time.sleep(0.005)
                rows = poll.take(lambda: connection.execute(_POLL, [POLL_ROWS]).fetchall())
                channel, number, text, _ = rows[0]
                time.sleep(0.005)
                dedup.take(partial(self._known, connection, channel, text))
                time.sleep(0.005)
                status.take(partial(connection.execute, _DONE, [number]))
            connection.execute("UPDATE legacy.messages_a SET status = 'published' WHERE status = 'received'")
        return LegacyCalls(poll.p95_ms, dedup.p95_ms, status.p95_ms, rate)

    @staticmethod
    def _known(connection: psycopg.Connection[Any], channel: str, text: str) -> list[Any]:
        return connection.execute(_KNOWN, [channel, text]).fetchall()

    @staticmethod
    def _store(connection: psycopg.Connection[Any], gateway: Legacy, message: Message) -> None:
        gateway.insert([message])
        connection.execute(_PUSHED, [message.message_id])

    def run(self, rate: float, seconds: float) -> LegacyRun:
        """Open-loop load of `rate` a second for `seconds`; the consumer gets one more round to finish."""
        ended = time.monotonic() + seconds
        latencies: list[float] = []
        consumer = threading.Thread(target=self._consume, args=(ended + POLL_SECONDS, latencies))
        consumer.start()
        sent = 0
        with self._server.connect("postgres") as connection:
            gateway, begun = Legacy(connection, "A"), time.monotonic()
            for sent in itertools.count(1):
                if (due := begun + sent / rate) > ended:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
                self._store(connection, gateway, self._next())
        consumer.join()
        ordered = sorted(latencies)
        return LegacyRun(rate, sent - 1, len(ordered), median(ordered), ordered[len(ordered) * 99 // 100])

    def _consume(self, until: float, latencies: list[float]) -> None:
        with self._server.connect("postgres") as connection:
            while time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                for channel, number, text, received in connection.execute(_POLL, [POLL_ROWS]).fetchall():
                    if not self._known(connection, channel, text):
                        connection.execute(_SIGNAL, [channel, text])
                    connection.execute(_DONE, [number])
                    latencies.append((time.time() - received) * 1000)
