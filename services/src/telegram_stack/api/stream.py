"""``/api/messages/stream``: new, edited and deleted messages as they are stored, by Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from telegram_stack.api import feed
from telegram_stack.api.errors import ApiError
from telegram_stack.api.feed import Place
from telegram_stack.api.hub import Client, Hub, written
from telegram_stack.api.messages import CHANNELS
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, transaction

LAST = Param("Last-Event-ID", feed.place, "The id of the last event that was received: go on behind it", place="header")
RESUME = Param("lastEventId", feed.place, "The same, for clients that cannot set headers")

_MANY = 500
_STEP = 200
_RESET = b"""event: reset
data: {"reason": "this server does not know the id: the stream begins anew, read what was missed"}

"""


class Stream:
    """The live stream."""

    def __init__(self, pool: Pool, consumer: str) -> None:
        self._pool = pool
        self._consumer = consumer
        self._hub = Hub(pool, consumer)

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/messages/stream",
                endpoint=self.listen,
                summary="New, edited and deleted messages as they are stored (Server-Sent Events)",
                params=(CHANNELS, LAST, RESUME),
                media=("text/event-stream",),
            ),
        )

    async def listen(self, request: Request) -> Response:
        """Begin now, or behind an event."""
        query, headers = Query(request.query_params), Query(request.headers)
        channels = CHANNELS.all(query)
        begin: Place | None = RESUME.of(query)
        query.finish()
        begin = LAST.of(headers) or begin
        headers.finish()
        if self._hub.clients >= _MANY:
            raise ApiError(503, "too_many_streams", f"{_MANY} live streams are open: try later")
        return _Events(self, channels, begin)

    async def send(self, client: Client, channels: Sequence[int], begin: Place | None) -> AsyncGenerator[bytes, None]:
        """What was missed since `begin`, then what comes. Ends only with an error."""
        async with self._hub.joined(client) as admitted:
            yield b"retry: 1000\n\n"
            end = await admitted
            if begin is not None:
                async for events in self._missed(channels, begin, end):
                    yield events
            else:
                yield f"id: {end}\n\n".encode()
            while True:
                yield await client.take()

    async def _missed(self, channels: Sequence[int], begin: Place, end: str) -> AsyncGenerator[bytes, None]:
        place = begin
        if not await transaction(self._pool, lambda connection: feed.is_known(connection, begin)):
            yield f"id: {end}\n".encode() + _RESET
            return
        complete = False
        while not complete:
            here = place

            async def work(connection: Connection) -> feed.Step:
                return await feed.step(
                    connection,
                    self._consumer,
                    here,  # noqa: B023 - awaited within its turn
                    end,
                    channels=channels,
                    limit=_STEP,
                )

            step = await transaction(self._pool, work)
            place, complete = step.place, step.complete
            if step.messages:
                yield b"".join(written(behind, message) for behind, message in step.messages)


class _Events(StreamingResponse):
    """Ends when the client goes, is cut off, or the database does not answer: the client then comes again by itself."""

    def __init__(self, stream: Stream, channels: Sequence[int], begin: Place | None) -> None:
        self._client = Client(channels)
        self._events = stream.send(self._client, channels, begin)
        super().__init__(self._events, headers={"X-Accel-Buffering": "no"}, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of them happens."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [
            asyncio.create_task(self._send(send), name="stream"),
            asyncio.create_task(_gone(receive), name="stream-gone"),
            asyncio.create_task(self._client.cut.wait(), name="stream-cut"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        try:
            async with contextlib.aclosing(self._events) as source:
                async for events in source:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
        except DatabaseUnavailableError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
