"""One reader of the feed for all live streams, and a queue for each client. Whose queue is full is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable

import msgspec
from prometheus_client import Counter, Gauge

from telegram_stack.api import feed
from telegram_stack.api.feed import Place
from telegram_stack.api.shapes import Message
from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, transaction

_log = logging.getLogger(__name__)

CLIENTS = Gauge("telegram_api_stream_clients", "Live streams that are open")
SENT = Counter("telegram_api_stream_events_total", "Events that were given to live streams")
CUT = Counter("telegram_api_stream_cut_total", "Live streams that were cut off because their client was too slow")

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
QUEUE = 1000
"""Events that may wait for a client. They are the same bytes for all of them."""
_STEP = 500

_encoder = msgspec.json.Encoder()


class Client:
    """One live stream: of `channels`, or of all where there is none."""

    def __init__(self, channels: Iterable[int]) -> None:
        self._channels = frozenset(map(str, channels))
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.cut = asyncio.Event()
        """Set once the client is too slow."""

    def offer(self, channel_id: str | None, event: bytes) -> None:
        """An event of a channel, or of none, for whoever wants it."""
        if self.cut.is_set() or (channel_id is not None and self._channels and channel_id not in self._channels):
            return
        if len(self._waiting) >= QUEUE:
            self._waiting.clear()
            self.cut.set()
            CUT.inc()
            _log.warning("a live stream is cut off: its client is %d events behind", QUEUE)
            return
        self._waiting.append(event)
        self._news.set()

    async def take(self) -> bytes:
        """All that waits; waits for something."""
        await self._news.wait()
        self._news.clear()
        events = b"".join(self._waiting)
        SENT.inc(len(self._waiting))
        self._waiting.clear()
        return events


class Hub:
    """Reads while somebody listens."""

    def __init__(self, pool: Pool, consumer: str) -> None:
        self._pool = pool
        self._consumer = consumer
        self._clients: set[Client] = set()
        self._joining: list[tuple[Client, asyncio.Future[str]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._clients) + len(self._joining)

    @contextlib.asynccontextmanager
    async def joined(self, client: Client) -> AsyncIterator[asyncio.Future[str]]:
        """`client` gets everything behind the snapshot that the future gives."""
        admitted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._joining.append((client, admitted))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="live-streams")
        try:
            yield admitted
        finally:
            self._clients.discard(client)
            self._joining = [pair for pair in self._joining if pair[0] is not client]
            CLIENTS.set(len(self._clients))

    async def _run(self) -> None:
        """Step by step; clients are let in between two steps."""
        place: Place | None = None
        loop = asyncio.get_running_loop()
        heartbeat = loop.time() + HEARTBEAT_SECONDS
        while self._clients or self._joining:
            try:
                place = await self._step(place)
            except DatabaseUnavailableError:  # what comes meanwhile is read behind `place` later
                await asyncio.sleep(1.0)
                continue
            except Exception:
                _log.exception("the feed of live streams cannot be read")
                await asyncio.sleep(1.0)
                continue
            if place.last is not None:
                continue
            for client, admitted in self._joining:
                self._clients.add(client)
                if not admitted.done():
                    admitted.set_result(place.begin)
            self._joining.clear()
            CLIENTS.set(len(self._clients))
            if loop.time() >= heartbeat:
                heartbeat = loop.time() + HEARTBEAT_SECONDS
                self._tell(None, f"id: {place}\n\n".encode())
            await asyncio.sleep(POLL_SECONDS)

    async def _step(self, place: Place | None) -> Place:
        async def work(connection: Connection) -> feed.Step:
            end = await feed.now(connection)
            if place is None:
                return feed.Step([], Place(end), complete=True)
            return await feed.step(connection, self._consumer, place, end, channels=(), limit=_STEP)

        step = await transaction(self._pool, work)
        for behind, message in step.messages:
            self._tell(message.channel_id, written(behind, message))
        return step.place

    def _tell(self, channel_id: str | None, event: bytes) -> None:
        for client in self._clients:
            client.offer(channel_id, event)


def written(place: Place, message: Message) -> bytes:
    """The message as an event."""
    kind = b"message" if message.deleted_at is None else b"delete"
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(place).encode(), kind, _encoder.encode(message))
