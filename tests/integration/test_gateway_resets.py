"""Connections that are reset while they are made: an outage like any other, on the event loop of the services."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from telegram_stack import events
from telegram_stack.cache import Primary
from telegram_stack.events import Content, Event
from telegram_stack.sinks.base import SinkUnavailableError
from telegram_stack.sinks.cache import CacheSink
from telegram_stack.spool import Entry

ATTEMPTS = 300


def batch() -> Sequence[Entry]:
    now = datetime.now(UTC)
    event = Event(
        kind="new", channel_id=-1001, message_id=1, version=1, received_at=now, message_date=now,
        content=Content(text="hello"),
    )  # fmt: skip
    return [Entry(1, event, events.encode(event), 0.0)]


@contextlib.contextmanager
def resetting() -> Iterator[int]:
    """A port whose connections are reset at once, by a thread, so that it happens while the client is on its way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def attempts(port: int) -> list[str]:
    redis = Redis(port=port, username="a", password="b", socket_timeout=1, retry=Retry(NoBackoff(), 0))
    sink = CacheSink(Primary(redis, []), ["signals"])
    said = []
    for _ in range(ATTEMPTS):
        with pytest.raises(SinkUnavailableError) as caught:
            await sink.write(batch())
        said.append(str(caught.value))
    await sink.close()
    return said


@pytest.mark.requirement("GW-05")
def test_a_cache_that_resets_each_connection_is_unavailable() -> None:
    with resetting() as port:
        said = uvloop.run(attempts(port))
    assert len(said) == ATTEMPTS
    assert all(said)
