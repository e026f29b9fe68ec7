"""Live streams over real connections: everything, once, in spite of slow clients and of transactions that overtake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from tests.integration.apis import CHANNELS, READER, START, Data, application, needs_postgres
from tests.integration.servers import Cable, Postgres, until

from telegram_stack.api import hub
from telegram_stack.observability.http import serve

pytestmark = [needs_postgres, pytest.mark.requirement("API-05")]


@pytest.fixture
async def url(api_database: Postgres, link: Cable, tmp_path: Path) -> AsyncIterator[str]:
    """Where the API serves."""
    ports: list[int] = []
    async with application(api_database, link.port, tmp_path) as api:
        server = asyncio.create_task(serve(api.application(), "127.0.0.1", 0, ports.append))
        await until(lambda: ports)
        yield f"http://127.0.0.1:{ports[0]}"
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


class Listener:
    """A client that keeps all that it gets."""

    def __init__(self, url: str, channels: list[int], last: str | None = None) -> None:
        self._url = url
        self._query = {"channelId": ",".join(map(str, channels))} if channels else {}
        self._headers = {"X-API-Key": READER} | ({"Last-Event-ID": last} if last else {})
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.last = last
        self.listening = False
        self.status = 0

    @property
    def numbers(self) -> list[int]:
        return [int(message["messageId"]) for _, message in self.events]

    async def run(self) -> None:
        """Until the server ends it."""
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream(
                "GET", f"{self._url}/api/messages/stream", params=self._query, headers=self._headers
            ) as answer,
        ):
            self.status = answer.status_code
            lines = answer.aiter_lines()
            fields: dict[str, str] = {}
            async for line in lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                self.take(fields)
                fields = {}

    def take(self, fields: dict[str, str]) -> None:
        """One event."""
        self.last = fields.get("id", self.last)
        self.listening = self.listening or "id" in fields or "event" in fields
        if "data" in fields:
            self.events.append((fields["event"], json.loads(fields["data"])))


@contextlib.asynccontextmanager
async def listening(url: str, *channels: int, last: str | None = None) -> AsyncIterator[Listener]:
    """A listener that is served."""
    listener = Listener(url, list(channels), last)
    task = asyncio.create_task(listener.run())
    try:
        if last is None:
            await until(lambda: listener.listening or task.done(), within=60)
            assert not task.done(), task.result()
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_new_edited_and_deleted_messages_come_as_they_are_stored(url: str, data: Data, api_channel: int) -> None:
    async with listening(url, api_channel) as one, listening(url) as all_channels:
        data.message(1, "first")
        await until(lambda: one.numbers == [1])
        assert one.events[0][0] == "message"
        assert one.events[0][1]["text"] == "first"
        data.message(7, channel_id=next(CHANNELS))
        data.connection.execute(
            "SELECT telegram.bulk_upsert_messages(ARRAY[%(channel)s], '{1}', ARRAY[%(date)s], '{20}', ARRAY[%(date)s],"
            " '{user_client}', '{text}', '{edited}')",
            {"channel": api_channel, "date": START},
        )
        await until(lambda: one.numbers == [1, 1])
        assert one.events[1][1]["text"] == "edited"
        data.connection.execute("SELECT telegram.mark_messages_deleted(ARRAY[%s], '{1}', ARRAY[now()])", [api_channel])
        await until(lambda: one.numbers == [1, 1, 1])
        assert one.events[2][0] == "delete"
        await until(lambda: all_channels.numbers == [1, 7, 1, 1])


async def test_a_client_goes_on_where_it_was_with_nothing_missing_and_nothing_twice(
    url: str, data: Data, api_database: Postgres, api_channel: int
) -> None:
    async with listening(url, api_channel) as first:
        data.message(1)
        await until(lambda: first.numbers == [1])
    with api_database.connect() as other, other.transaction():
        Data(other, api_channel).message(2)  # begins before 3, ends behind it
        data.message(3)
        async with listening(url, api_channel, last=first.last) as second:
            await until(lambda: second.numbers == [3])
    for number in range(4, 504):  # more than one step
        data.message(number)
    async with listening(url, api_channel, last=second.last) as third:
        await until(lambda: len(third.numbers) >= 501)
        data.message(504)
        await until(lambda: 504 in third.numbers)
    assert sorted(third.numbers) == [2, *range(4, 505)]


async def test_a_client_goes_on_from_within_a_step(url: str, data: Data, api_channel: int) -> None:
    """One transaction with many messages: each of them is a place to go on from."""
    async with listening(url, api_channel) as first:
        data.message(1)
        await until(lambda: first.numbers == [1])
    with data.connection.transaction():
        for number in range(2, 12):
            data.message(number)
    places: list[str] = []
    async with listening(url, api_channel, last=first.last) as whole:
        take = whole.take

        def noting(fields: dict[str, str]) -> None:
            take(fields)
            if "data" in fields:
                places.append(fields["id"])

        whole.take = noting  # type: ignore[method-assign]
        await until(lambda: len(whole.numbers) == 10)
    for position in (0, 4, 9):
        data.message(100 + position)
        async with listening(url, api_channel, last=places[position]) as rest:
            await until(lambda: 100 + position in rest.numbers)  # noqa: B023 - awaited within its turn
            later = [number for number in (100, 104, 109) if number <= 100 + position]
            assert rest.numbers == [*range(position + 3, 12), *later]


async def test_a_stuck_client_is_cut_off_alone_and_resumes(url: str, data: Data, api_channel: int) -> None:
    with patch.object(hub, "QUEUE", 50):
        async with listening(url, api_channel) as quick:
            stuck = socket.socket()
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.setblocking(False)
            loop = asyncio.get_running_loop()
            host, port = url.removeprefix("http://").split(":")
            await loop.sock_connect(stuck, (host, int(port)))
            request = f"GET /api/messages/stream?channelId={api_channel} HTTP/1.1\r\nHost: x\r\nX-API-Key: {READER}\r\n"
            await loop.sock_sendall(stuck, f"{request}\r\n".encode())
            got = b""
            while b"id: " not in got:
                got += await loop.sock_recv(stuck, 65536)
            cut_before = hub.CUT._value.get()
            total = 0
            text = "x" * 60_000
            while hub.CUT._value.get() == cut_before:
                assert total < 1000, "never cut off"
                for _ in range(10):
                    total += 1
                    data.message(total, text)
                await until(lambda: len(quick.numbers) == total, within=20)  # noqa: B023 - awaited within its turn
            async with asyncio.timeout(20):
                while part := await loop.sock_recv(stuck, 1 << 20):
                    got += part
            stuck.close()
        assert quick.numbers == list(range(1, total + 1))
        body = b"".join(_chunks(got))
        whole = body[: body.rindex(b"\n\n")].split(b"\n\n")
        ids = [line[4:].decode() for event in whole for line in event.split(b"\n") if line.startswith(b"id: ")]
        seen = sum(b"data: " in event for event in whole)
        assert 0 < seen < total
        async with listening(url, api_channel, last=ids[-1]) as again:
            await until(lambda: len(again.numbers) == total - seen)
        assert again.numbers == list(range(seen + 1, total + 1))


def _chunks(answer: bytes) -> list[bytes]:
    """The chunks of a chunked answer, without the last one if it is torn."""
    rest = answer.split(b"\r\n\r\n", 1)[1]
    chunks = []
    while b"\r\n" in rest:
        size, rest = rest.split(b"\r\n", 1)
        length = int(size, 16)
        if length == 0:
            break
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return chunks


async def test_200_clients_get_every_message_of_their_filter(url: str, data: Data, api_channel: int) -> None:
    other = next(CHANNELS)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        mine = await asyncio.gather(*(enter(listening(url, api_channel)) for _ in range(100)))
        both = await asyncio.gather(*(enter(listening(url, api_channel, other)) for _ in range(100)))
        for number in range(1, 21):
            data.message(number, channel_id=api_channel if number % 2 else other)
            await asyncio.sleep(0.05)
        await until(lambda: all(len(listener.numbers) == 10 for listener in mine), within=20)
        await until(lambda: all(len(listener.numbers) == 20 for listener in both), within=20)
    assert all(listener.numbers == list(range(1, 21, 2)) for listener in mine)
    assert all(listener.numbers == list(range(1, 21)) for listener in both)


async def test_a_stream_outlives_its_database(url: str, link: Cable, data: Data, api_channel: int) -> None:
    async with listening(url, api_channel) as listener:
        await link.cut()
        data.message(1)
        await asyncio.sleep(0.5)
        await link.mend()
        await until(lambda: listener.numbers == [1], within=20)


async def test_an_id_of_another_server_begins_anew_and_says_so(url: str, data: Data, api_channel: int) -> None:
    async with listening(url, api_channel, last="900000000:900000000:") as listener:
        await until(lambda: listener.events)
        assert listener.events[0][0] == "reset"
        data.message(1)
        await until(lambda: len(listener.events) == 2)


@pytest.mark.parametrize(
    "last",
    ["x", "5:4:", "0:1:", "5:9:7,6", "5:9:9", "5:9:1", "99999999999999999999:1:", "5:9:;4:3:;1,1,1", "5:9:;5:9:;1,1"],
)
async def test_what_is_no_id_is_refused(url: str, last: str) -> None:
    async with httpx.AsyncClient(headers={"X-API-Key": READER}) as client:
        answer = await client.get(f"{url}/api/messages/stream", headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")
        answer = await client.get(f"{url}/api/messages/stream", params={"lastEventId": last})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "lastEventId")
