"""The queue sink against a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from tests.integration.brokers import (
    Broker,
    rabbitmq,
    rabbitmq_installed,
)
from tests.integration.gateways import Silent
from tests.integration.servers import cable
from tests.integration.spooled import channel, entries, state

from telegram_stack import events
from telegram_stack.events import Event
from telegram_stack.sinks.base import SinkUnavailableError, drain
from telegram_stack.sinks.queue import QueueConfig, QueueSink
from telegram_stack.spool import Entry
from telegram_stack.topology import EXCHANGE, UNROUTABLE

__all__ = ["channel"]

needs_rabbitmq = pytest.mark.skipif(not rabbitmq_installed(), reason="RabbitMQ is not installed")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@contextlib.asynccontextmanager
async def queue_sink(broker: Broker, port: int = 0) -> AsyncIterator[QueueSink]:
    sink = QueueSink(QueueConfig(port=port or broker.port, timeout=5), broker.password)
    try:
        yield sink
    finally:
        await sink.close()
        await asyncio.sleep(0.05)  # pika closes in the background


def messages(broker: Broker, queue: str) -> list[tuple[Any, Event]]:
    """Take everything out of `queue`: properties and events."""
    channel = broker.channel()
    found = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        found.append((properties, events.decode(body)))
    channel.connection.close()
    return found


@needs_rabbitmq
@pytest.mark.requirement("MQ-01")
async def test_a_batch_is_published_in_order_persistent_with_headers(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 301)))
    async with queue_sink(broker) as sink:
        await sink.write(batch[:1])  # declares the exchange
        with contextlib.closing(broker.channel().connection) as connection:
            other = connection.channel()
            other.queue_declare(f"test{channel}", durable=True)
            other.queue_bind(f"test{channel}", EXCHANGE, f"telegram.channel.{channel}")
        await sink.write(batch)
    found = messages(broker, f"test{channel}")
    assert [event for _, event in found] == [entry.event for entry in batch]
    properties = found[0][0]
    assert (properties.delivery_mode, properties.headers) == (2, {"x-source": "user_client", "x-channel-id": channel})
    assert properties.message_id == f"{channel}:1:{batch[0].event.version}"


@needs_rabbitmq
@pytest.mark.requirement("MQ-02")
async def test_what_nobody_wants_is_kept_as_unroutable(broker: Broker, channel: int) -> None:
    async with queue_sink(broker) as sink:
        await sink.write(entries(state(channel, 1)))
    assert channel in [event.channel_id for _, event in messages(broker, UNROUTABLE)]


@needs_rabbitmq
@pytest.mark.requirement("MQ-02")
@pytest.mark.requirement("GW-05")
async def test_a_broker_restart_loses_nothing(broker: Broker, channel: int) -> None:
    async with queue_sink(broker) as sink:
        await sink.write(entries(state(channel, 1)))
        await asyncio.to_thread(broker.stop)
        with pytest.raises(SinkUnavailableError, match=str(broker.port)):
            await sink.write(entries(state(channel, 2)))
        await asyncio.to_thread(broker.start)
        await sink.write(entries(state(channel, 2)))
    found = [event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel]
    assert found == [1, 2]


@needs_rabbitmq
async def test_a_cut_cable_leaves_only_what_was_not_confirmed(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 2001)))
    async with cable("127.0.0.1", broker.port) as link, queue_sink(broker, link.port) as sink:
        await sink.write(batch[:1])
        writing = asyncio.create_task(sink.write(batch[1:]))
        await asyncio.sleep(0.05)
        await link.cut()
        remaining = batch[1:]
        with contextlib.suppress(SinkUnavailableError):
            try:
                await writing
                remaining = []
            except SinkUnavailableError as error:
                assert error.remaining is not None
                remaining = list(error.remaining)
        await link.mend()
        if remaining:
            await sink.write(remaining)
    found = {event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel}
    assert found == set(range(1, 2001))


class Batches:
    """A spool that holds `entries` in batches of 20; says when the drain has moved the cursor."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.cursor = 0
        self.moved = asyncio.Event()

    async def batches(self, sink: str, limit: int) -> AsyncIterator[list[Entry]]:
        for start in range(0, len(self._entries), 20):
            yield list(self._entries[start : start + 20])

    def advance(self, sink: str, seq: int) -> None:
        assert seq > self.cursor
        self.cursor = seq
        self.moved.set()

    async def quarantine(self, sink: str, entries: object, reason: str) -> None:
        raise AssertionError(reason)


@needs_rabbitmq
@pytest.mark.requirement("GW-05")
@pytest.mark.requirement("MQ-02")
async def test_batches_on_their_way_when_the_cable_is_cut_arrive_in_their_order(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 4001)))
    spool = Batches(batch)
    async with cable("127.0.0.1", broker.port) as link, queue_sink(broker, link.port) as sink:
        await sink.write(batch[:1])
        draining = asyncio.create_task(drain(sink, spool, Silent(), window=4))
        for _ in range(3):
            spool.moved.clear()
            await spool.moved.wait()
            await link.cut()
            await asyncio.sleep(0.3)
            await link.mend()
        assert spool.cursor < batch[-1].seq, "cut while there was something to be written"
        await draining
    found = [event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel]
    assert list(dict.fromkeys(found)) == list(range(1, 4001)), "what comes twice comes behind its first time"


@needs_rabbitmq
async def test_a_wrong_password_is_said_so(broker: Broker, channel: int) -> None:
    sink = QueueSink(QueueConfig(port=broker.port, timeout=5), "wrong")
    with pytest.raises(SinkUnavailableError, match="ACCESS_REFUSED"):
        await sink.write(entries(state(channel, 1)))
    await sink.close()
