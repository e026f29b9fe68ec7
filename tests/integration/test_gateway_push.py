"""HTTP push to real servers: signed, in order within a channel, repeated until it is taken, and replayed by command."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import free_port, until, whole_lines
from tests.unit.test_spool import events

from telegram_stack.events import decode
from telegram_stack.observability.http import serve
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.sinks.push import PushSink
from telegram_stack.spool import Entry, Spool
from telegram_stack.telegram.session import SessionFile

KEY = "a made-up key"


@dataclass
class Receiver:
    """Takes what is signed rightly; answers what `status` says, 200 without."""

    port: int = field(default_factory=free_port)
    bodies: list[bytes] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    """For the next requests."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def orders(self) -> dict[int, list[int]]:
        """The messages of each channel as they came."""
        found: dict[int, list[int]] = defaultdict(list)
        for event in map(decode, self.bodies):
            found[event.channel_id].append(event.message_id)
        return found

    def keys(self) -> Counter[tuple[int, int]]:
        return Counter(decode(body).key for body in self.bodies)

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        signed = request.headers["X-Gateway-Timestamp"].encode() + b"." + body
        expected = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        if request.headers["X-Gateway-Signature"] != f"sha256={expected}":
            return Response(status_code=400)
        if self.status and (status := self.status.pop(0)) != 200:
            return Response(status_code=status)
        event = decode(body)
        assert request.headers["Idempotency-Key"] == f"{event.channel_id}:{event.message_id}:{event.version}"
        assert request.headers["X-Gateway-Event"] == event.kind
        self.bodies.append(body)
        return Response(status_code=200)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = Starlette(routes=[Route("/events", self.handle, methods=["POST"])])
        started = asyncio.Event()
        task = asyncio.create_task(serve(app, "127.0.0.1", self.port, lambda _port: started.set()))
        await started.wait()
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def push_sink(address: str, lag: int = 0, *, backlog_limit: int = 100) -> tuple[PushSink, Counter[str]]:
    given_up: Counter[str] = Counter()
    sink = PushSink(
        address,
        KEY,
        timeout=1,
        backlog_limit=backlog_limit,
        lag=lambda: lag,
        given_up=lambda name, count: given_up.update({name: count}),
    )
    return sink, given_up


@pytest.mark.requirement("GW-13")
async def test_each_event_is_signed_in_order_and_no_address_holds_another(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    good, failing, dead = Receiver(), Receiver(), Receiver()
    failing.status = [503, 200, 429, 404, 302]
    pushes = [push_sink(receiver.address)[0] for receiver in (good, failing, dead)]
    async with (
        good.serving(),
        failing.serving(),
        running(session, [*sinks, *pushes], unfinished=[pushes[2].name]) as gateway,
    ):
        await gateway.complete()
        sent = post(telegram, 60)
        await until(lambda: good.keys() == Counter(sent), 20)
        await until(lambda: set(failing.keys()) == sent, 20)
        await until(lambda: all(sink.keys() == Counter(sent) for sink in sinks))
        assert gateway.spool.lag(pushes[2].name) == 60
        assert gateway.spool.lag(pushes[0].name) == 0
        assert await gateway.spool.quarantined() == {}
    for receiver in (good, failing):
        assert len(receiver.orders()) == 3
        assert all(order == sorted(order) for order in receiver.orders().values())
    for push in pushes:
        await push.close()


RECEIVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab", buffering=0) as file:
            file.write(body + b"\\n")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def receiver_process(port: int, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", RECEIVER, str(port), str(file)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.requirement("GW-13")
async def test_a_killed_receiver_misses_nothing_and_the_cursor_outlives_the_gateway(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], tmp_path: Path
) -> None:
    receiver, file = Receiver(), tmp_path / "received"
    file.touch()

    def received() -> list[tuple[int, int]]:
        return [decode(line).key for line in whole_lines(file)]

    push, _ = push_sink(receiver.address)
    sent: set[tuple[int, int]] = set()
    async with running(session, [*sinks, push], unfinished=[push.name]) as gateway:
        await gateway.complete()
        with receiver_process(receiver.port, file) as process:
            sent |= post(telegram, 30)
            await until(lambda: set(received()) == sent, 20)
            sent |= post(telegram, 200)
            await until(lambda: len(received()) > 60, 20)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
        sent |= post(telegram, 30)
        await until(lambda: all(set(sink.keys()) == sent for sink in sinks), 20)
        assert gateway.spool.lag(push.name) > 0
    async with running(session, [*sinks, push]) as gateway:
        with receiver_process(receiver.port, file):
            await until(lambda: set(received()) == sent, 30)
            await until(lambda: gateway.spool.lag(push.name) == 0)
    orders: dict[int, list[int]] = defaultdict(list)
    for channel_id, message_id in dict.fromkeys(received()):
        orders[channel_id].append(message_id)
    assert all(order == sorted(order) for order in orders.values())
    assert len(received()) <= len(sent) + 256, "a kill repeats one batch at most"
    await push.close()


@pytest.mark.requirement("GW-13")
async def test_an_address_too_far_behind_gives_up_the_oldest(tmp_path: Path) -> None:
    push, given_up = push_sink("http://127.0.0.1:9/events", lag=101)
    spool = Spool(tmp_path / "spool.db", [push.name])
    await spool.open()
    await spool.commit(events(1, 2, 3))
    batch: Sequence[Entry] = await anext(spool.batches(push.name))
    await push.write(batch)
    assert given_up == {push.name: 3}
    await spool.close()
    await push.close()
