"""The queue sink: RabbitMQ with publisher confirms, whole batches in flight at once."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from prometheus_client import Counter

from telegram_stack.events import routing_key
from telegram_stack.sinks.base import SinkUnavailableError
from telegram_stack.spool import Entry
from telegram_stack.topology import EXCHANGE, Binding, Declaration, Exchange, Queue, publisher_topology

log = logging.getLogger(__name__)

_PERSISTENT = 2
NACKS = Counter("telegram_queue_nacks", "Messages that the broker refused (nack); they are published again")


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[queue]``: RabbitMQ, or none at all with ``enabled = false``. `timeout` is that of a confirm."""

    enabled: bool = True
    password_file: str = "rabbitmq-password"  # noqa: S105 - a file name
    user: str = "telegram_gateway"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 5672
    vhost: str = "telegram"
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0


class _Batch:
    """What the broker has not confirmed of one batch, by tag, and what it has accepted."""

    def __init__(self) -> None:
        self.open: dict[int, Entry] = {}
        self.accepted: set[int] = set()
        self.settled = asyncio.Event()

    def settle(self, tag: int, accepted: bool) -> None:
        """The broker's word on `tag`."""
        entry = self.open.pop(tag)
        if accepted:
            self.accepted.add(entry.seq)
        if not self.open:
            self.settled.set()


class QueueSink:
    """Publishes persistent messages and waits for the broker's word on each.

    Several batches may be written at once; they are published in the order in which `write` was called.
    """

    name = "queue"

    def __init__(self, config: QueueConfig, password: str) -> None:
        self._timeout = config.timeout
        self._address = f"{config.host}:{config.port}"
        self._parameters = pika.ConnectionParameters(
            host=config.host,
            port=config.port,
            virtual_host=config.vhost,
            credentials=pika.PlainCredentials(config.user, password),
            heartbeat=10,
            connection_attempts=1,  # the drain has the back-off
            socket_timeout=config.timeout,
            stack_timeout=config.timeout,
            blocked_connection_timeout=config.timeout,
            client_properties={"connection_name": "telegram-gateway"},
        )
        self._connection: Any = None
        self._channel: Any = None
        self._failed: asyncio.Future[None] | None = None
        self._unconfirmed: dict[int, _Batch] = {}
        self._next_tag = 1
        self._connecting = asyncio.Lock()

    async def write(self, batch: Sequence[Entry]) -> None:
        """Publish `batch` in its order; returns when the broker has confirmed every message."""
        async with self._connecting:
            if self._channel is None or not self._channel.is_open:
                await self._connect()
        sent = _Batch()
        failed = self._failed
        try:
            for entry in batch:
                sent.open[self._next_tag] = entry
                self._unconfirmed[self._next_tag] = sent
                self._next_tag += 1
                self._channel.basic_publish(EXCHANGE, routing_key(entry.event), entry.body, _properties(entry))
            await self._until(sent.settled.wait(), "confirm the batch")
        except (SinkUnavailableError, pika.exceptions.AMQPError) as error:
            if failed is self._failed:  # no other batch has connected anew meanwhile
                self._drop()
            raise SinkUnavailableError(_reason(error), _remaining(batch, sent)) from error
        if remaining := _remaining(batch, sent):
            raise SinkUnavailableError(f"{self._address} refused {len(remaining)} messages (nack)", remaining)

    async def close(self) -> None:
        """Close the connection."""
        self._drop()

    async def _connect(self) -> None:
        self._drop()
        loop = asyncio.get_running_loop()
        self._failed = failed = loop.create_future()
        failed.add_done_callback(lambda future: future.exception())  # nobody may be waiting when it fails
        opened: asyncio.Future[None] = loop.create_future()

        def fail(_connection: object, reason: object) -> None:
            if not failed.done():
                failed.set_exception(SinkUnavailableError(f"{self._address}: {_reason(reason)}"))

        try:
            self._connection = AsyncioConnection(
                self._parameters,
                on_open_callback=_resolver(opened),
                on_open_error_callback=fail,
                on_close_callback=fail,
                custom_ioloop=loop,
            )
            await self._until(opened, "accept the connection")
            await self._open_channel(loop, fail)
        except (SinkUnavailableError, pika.exceptions.AMQPError) as error:
            self._drop()
            raise SinkUnavailableError(_reason(error)) from error
        log.info("connected to the broker", extra={"address": self._address})

    async def _open_channel(self, loop: asyncio.AbstractEventLoop, fail: Callable[[object, object], None]) -> None:
        opened: asyncio.Future[None] = loop.create_future()
        channel = self._connection.channel(on_open_callback=_resolver(opened))
        channel.add_on_close_callback(fail)
        await self._until(opened, "open a channel")
        for declaration in publisher_topology():
            declared: asyncio.Future[None] = loop.create_future()
            _declare(channel, declaration, _resolver(declared))
            await self._until(declared, f"declare {declaration}")
        selected: asyncio.Future[None] = loop.create_future()
        channel.confirm_delivery(partial(self._on_confirm, channel), callback=_resolver(selected))
        await self._until(selected, "turn on confirms")
        self._next_tag = 1
        self._channel = channel

    async def _until(self, awaitable: Any, what: str) -> None:
        """Wait for `awaitable`, for the connection to fail, or for the time to run out."""
        failed = self._failed
        assert failed is not None, "not connected"
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task, failed}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return
            if failed.done():
                failed.result()
            raise SinkUnavailableError(f"{self._address} did not {what} within {self._timeout:g} s")
        finally:
            task.cancel()

    def _on_confirm(self, channel: Any, frame: Any) -> None:
        if channel is not self._channel:  # its numbers mean other messages now
            return
        tag = frame.method.delivery_tag
        accepted = isinstance(frame.method, pika.spec.Basic.Ack)
        tags = [tag]
        if frame.method.multiple:
            tags = list(itertools.takewhile(lambda known: known <= tag, self._unconfirmed))
        for known in tags:
            batch = self._unconfirmed.pop(known, None)
            if batch is None:
                continue
            batch.settle(known, accepted)
            if not accepted:
                NACKS.inc()

    def _drop(self) -> None:
        """Leave the connection; every batch on its way fails with it."""
        connection, self._connection, self._channel = self._connection, None, None
        self._unconfirmed.clear()
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(SinkUnavailableError(f"{self._address}: the connection was given up"))
        if connection is not None and not (connection.is_closed or connection.is_closing):
            connection.close()


def _remaining(batch: Sequence[Entry], sent: _Batch) -> list[Entry]:
    return [entry for entry in batch if entry.seq not in sent.accepted]


def _properties(entry: Entry) -> Any:
    event = entry.event
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=f"{event.channel_id}:{event.message_id}:{event.version}",
        type=event.kind,
        timestamp=int(event.received_at.timestamp()),
        headers={"x-source": event.source, "x-channel-id": event.channel_id},
    )


def _declare(channel: Any, declaration: Declaration, done: Callable[[object], None]) -> None:
    match declaration:
        case Exchange(name, kind, arguments):
            channel.exchange_declare(name, kind, durable=True, arguments=arguments, callback=done)
        case Queue(name, arguments):
            channel.queue_declare(name, durable=True, arguments=arguments, callback=done)
        case Binding(exchange, queue, key):
            channel.queue_bind(queue, exchange, key, callback=done)


def _resolver(future: asyncio.Future[None]) -> Callable[[object], None]:
    def resolve(_answer: object) -> None:
        if not future.done():
            future.set_result(None)

    return resolve


def _reason(reason: object) -> str:
    """pika wraps causes in workflows, phases and tuples; the innermost has the useful words."""
    if isinstance(reason, BaseException):
        inner = getattr(reason, "exceptions", None) or [getattr(reason, "exception", None)]
        nested = inner[-1] or next((part for part in reason.args if isinstance(part, BaseException)), None)
        if nested is not None:
            return _reason(nested)
    return str(reason) or type(reason).__name__
