"""The consumer's side of RabbitMQ: one connection, one channel, one queue, and they end together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from telegram_stack.events import Event
from telegram_stack.topology import Binding, Exchange, Queue, consumer_queue, consumer_topology
from telegram_stack.worker.config import QueueConfig

ATTEMPT_HEADER = "x-attempt"
_PUBLISHER_HEADERS = ("x-source", "x-channel-id")
_TIMEOUT = 10.0
_HEARTBEAT = 15
_PERSISTENT = 2


class BrokerUnavailableError(Exception):
    """The broker cannot be reached, refused something, or is gone; later it may work."""


@dataclass(frozen=True)
class Delivery:
    """One message as it was handed to us. `attempt` counts from 1 and grows with each wait queue.

    `headers` are the publisher's own, without those of the broker. `event` is the body's, where it was read before:
    from cache or database, which know no tags.
    """

    tag: int
    body: bytes
    attempt: int = 1
    headers: dict[str, Any] = field(default_factory=dict)
    event: Event | None = None


class Subscription:
    """Deliveries of one queue until the connection ends or `cancel` is called. Made by `subscribe`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._incoming: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._first_at = 0.0
        self._opened: asyncio.Future[None] = loop.create_future()
        self._lost: asyncio.Future[str] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._confirms: dict[int, asyncio.Future[bool]] = {}
        self._published = 0
        self._connection: Any = None
        self._channel: Any = None
        self._tag = ""

    @property
    def lost(self) -> str | None:
        """Why the connection ended; None while it lives."""
        return self._lost.result() if self._lost.done() else None

    async def batch(self, limit: int, linger: float) -> list[Delivery]:
        """The next deliveries, in order: waits for one, then for up to `limit`, `linger` seconds after the first came.

        Empty when there will be no more.
        """
        deliveries: list[Delivery] = []
        deadline = float("inf")
        while len(deliveries) < limit:
            try:
                if self._incoming.empty():
                    async with asyncio.timeout_at(deadline if deliveries else None):
                        delivery = await self._incoming.get()
                else:
                    delivery = self._incoming.get_nowait()
            except TimeoutError:
                break
            if delivery is None:
                self._incoming.put_nowait(None)  # for the next call
                break
            if not deliveries:
                deadline = self._first_at + linger  # past, if it has waited for the batch before
            deliveries.append(delivery)
        return deliveries

    def acknowledge_through(self, tag: int) -> None:
        """Settle every delivery up to `tag` that was not rejected; does nothing when the connection is lost."""
        if not self._lost.done():
            self._channel.basic_ack(tag, multiple=True)

    def dead_letter(self, tag: int) -> None:
        """Give the delivery up to the dead-letter exchange; nothing when the connection is lost."""
        if not self._lost.done():
            self._channel.basic_reject(tag, requeue=False)

    async def wait_in(self, queue: str, delivery: Delivery) -> None:
        """Put a copy of `delivery`, as its next attempt, into a wait queue; returns when the broker has it.

        Raises BrokerUnavailableError.
        """
        if self._lost.done():
            raise BrokerUnavailableError(self._lost.result())
        self._published += 1
        confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._confirms[self._published] = confirmed
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            headers={**delivery.headers, ATTEMPT_HEADER: delivery.attempt + 1},
        )
        self._channel.basic_publish("", queue, delivery.body, properties)
        if not await self._unless_lost(confirmed):
            raise BrokerUnavailableError(f"{queue} did not take a message")

    async def cancel(self) -> None:
        """Ask for no more; what was already handed over is still in `batch`."""
        if not self._lost.done():
            with contextlib.suppress(BrokerUnavailableError):
                await self._call(partial(self._channel.basic_cancel, self._tag))
            self._incoming.put_nowait(None)

    async def close(self) -> None:
        """End the connection; what was not settled goes back to the queue."""
        if self._connection is None:
            return
        if self._connection.is_open:
            self._connection.close()
        await asyncio.wait({self._gone}, timeout=_TIMEOUT)

    async def open(self, config: QueueConfig, password: str, consumer: str) -> None:
        """Connect, declare the consumer's queues, consume."""
        parameters = pika.ConnectionParameters(
            host=config.host,
            port=config.port,
            virtual_host=config.vhost,
            credentials=pika.PlainCredentials(config.user, password),
            heartbeat=_HEARTBEAT,
            socket_timeout=_TIMEOUT / 2,
            stack_timeout=_TIMEOUT,
            client_properties={"connection_name": f"telegram-signal-worker {consumer}"},
        )
        self._connection = connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda _connection: self._opened.set_result(None),
            on_open_error_callback=self._on_connection_end,
            on_close_callback=self._on_connection_end,
            custom_ioloop=asyncio.get_running_loop(),
        )
        await self._unless_lost(self._opened)
        self._channel = channel = await self._call(lambda callback: connection.channel(on_open_callback=callback))
        channel.add_on_close_callback(lambda _channel, error: self._end(error))
        channel.add_on_cancel_callback(lambda _frame: self._end("the queue was deleted"))
        await self._declare(consumer)
        await self._call(partial(channel.confirm_delivery, self._on_confirm))
        await self._call(partial(channel.basic_qos, prefetch_count=config.prefetch))
        self._tag = channel.basic_consume(consumer_queue(consumer), self._on_message)

    async def _declare(self, consumer: str) -> None:
        channel = self._channel
        for item in consumer_topology(consumer):
            match item:
                case Queue(name, arguments):
                    await self._call(partial(channel.queue_declare, name, durable=True, arguments=arguments))
                case Binding(exchange, queue, key):
                    await self._call(partial(channel.queue_bind, queue, exchange, key))
                case Exchange():
                    raise AssertionError("exchanges belong to the publisher")

    async def _call(self, start: Callable[..., object]) -> Any:
        """Call a pika method that answers by its argument `callback`, and wait for the answer."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        start(callback=lambda frame: None if done.done() else done.set_result(frame))
        return await self._unless_lost(done)

    async def _unless_lost(self, future: asyncio.Future[Any]) -> Any:
        await asyncio.wait({future, self._lost}, timeout=_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise BrokerUnavailableError(self.lost or f"no answer within {_TIMEOUT:g} s")

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = properties.headers or {}
        attempt = headers.get(ATTEMPT_HEADER)
        self._take(
            Delivery(
                tag=method.delivery_tag,
                body=body,
                attempt=attempt if isinstance(attempt, int) and attempt > 0 else 1,
                headers={name: headers[name] for name in _PUBLISHER_HEADERS if name in headers},
            )
        )

    def _take(self, delivery: Delivery) -> None:
        if self._incoming.empty():
            self._first_at = asyncio.get_running_loop().time()
        self._incoming.put_nowait(delivery)

    def _on_confirm(self, frame: Any) -> None:
        last: int = frame.method.delivery_tag
        for tag in [tag for tag in self._confirms if tag == last or (frame.method.multiple and tag < last)]:
            self._confirms.pop(tag).set_result(frame.method.NAME == "Basic.Ack")

    def _on_connection_end(self, _connection: Any, error: object) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        self._end(error)

    def _end(self, error: object) -> None:
        if not self._lost.done():
            self._lost.set_result(_words(error))
            self._incoming.put_nowait(None)
        if self._connection is not None and self._connection.is_open:
            self._connection.close()


async def subscribe(config: QueueConfig, password: str, consumer: str) -> Subscription:
    """Connect to the broker and consume the queue of `consumer`, which is declared if need be.

    Raises BrokerUnavailableError; nothing stays open then.
    """
    subscription = Subscription()
    try:
        await subscription.open(config, password, consumer)
    except BaseException:
        await subscription.close()
        raise
    return subscription


def _words(error: object) -> str:
    """The broker's own words, or those of the deepest cause, in one line."""
    while isinstance(error, BaseException):
        deeper = getattr(error, "exceptions", None) or getattr(error, "args", None) or ()
        inner = [item for item in deeper if isinstance(item, BaseException)]
        if not inner:
            break
        error = inner[-1]
    text = getattr(error, "reply_text", None) or str(error) or type(error).__name__
    return str(text).strip().partition("\n")[0]
