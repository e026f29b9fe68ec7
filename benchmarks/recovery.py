"""Workload ``recovery``: how a gateway that was away for long comes back, while live messages go on.

    python -m benchmarks.recovery --missed 50000 --edits 2000 --deletes 500 --channels 50

The simulator (a process of its own, with Telegram's usual limits) posts, edits and deletes while the gateway is away.
Then the gateway connects, messages come live, and everything has to be there in the end: the final state of each
message, in order within its channel, without a flood wait that was not kept. Sinks are lists: this measures Telegram's
side and the spool alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop
from tests.integration.gateways import KEY, Gateway, ListSink, running
from tests.integration.servers import until
from tests.integration.test_simulator_program import program

from benchmarks.database.timing import Timings
from telegram_stack.spool import Entry
from telegram_stack.telegram.session import SessionFile

LIVE_SECONDS = 0.05
_CHUNK = 2_000


class TimedSink(ListSink):
    """Also notes when each version was there first."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.at: dict[tuple[int, int], float] = {}

    async def write(self, batch: Sequence[Entry]) -> None:
        await super().write(batch)
        now = time.time()
        for entry in batch:
            self.at.setdefault(entry.event.key, now)


def main() -> None:
    """Run the workload and print what came of it; exit code 1 when something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("missed", 50_000), ("edits", 2_000), ("deletes", 500), ("channels", 50)):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="recovery-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        told = runner.run(measure(Path(folder), options))
    for name, value in told.items():
        print(f"{name:>34}  {value}")
    raise SystemExit(int(bool(told["wrong or missing"] or told["out of order"])))


async def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures by name."""
    async with program(folder / "telegram", "--port", "0", "--channels", str(options.channels)) as (_, _port, control):
        control.timeout = httpx.Timeout(120)
        (folder / "gateway").mkdir(mode=0o700)
        session = SessionFile(folder / "gateway" / "session", KEY)
        session.write((await control.post("/sessions", json={})).json()["session"])
        sink = TimedSink("database")
        known = await post(control, options.edits + options.deletes)
        async with running(session, [sink]) as gateway:
            await gateway.complete()
            calm = await live(control, sink, 100)
        await change(control, known[: options.edits], known[options.edits :])
        await post(control, options.missed)
        asked = await requests(control)
        begun = time.monotonic()
        async with running(session, [sink]) as gateway:
            meanwhile = asyncio.create_task(live_until_complete(control, sink, gateway))
            busy = await meanwhile
            seconds = time.monotonic() - begun
            waits = dict(gateway.reception.floods)
        after = await requests(control)
        return {
            "missed messages, edits, deletes": f"{options.missed:,}, {options.edits:,}, {options.deletes:,}",
            "channels": options.channels,
            "seconds until complete": round(seconds, 1),
            "wrong or missing": await differences(control, sink),
            "out of order": disorder(sink),
            "requests": {name: count for name, count in (after - asked).items() if count > 5},
            "flood waits, seconds by method": waits or "none",
            "live before, p50 and p95 in ms": f"{calm.median_ms:.1f}, {calm.p95_ms:.1f}",
            "live meanwhile, p50 and p95 in ms": f"{busy.median_ms:.1f}, {busy.p95_ms:.1f} of {len(busy.seconds)}",
        }


async def post(control: httpx.AsyncClient, count: int) -> list[tuple[int, int]]:
    """Post so many, dealt out to the channels; their keys in order."""
    keys = []
    for begin in range(0, count, _CHUNK):
        answer = await control.post("/messages", json={"count": min(_CHUNK, count - begin)})
        keys += [
            (message["channel_id"], message["message_id"]) for message in answer.raise_for_status().json()["messages"]
        ]
    return keys


async def change(control: httpx.AsyncClient, edited: Sequence[Any], deleted: Sequence[Any]) -> None:
    """Edit the ones and delete the others."""
    for channel, message in edited:
        body = {"channel_id": channel, "message_id": message, "text": f"editado {message}"}
        (await control.post("/edits", json=body)).raise_for_status()
    for channel, message in deleted:
        (await control.post("/deletes", json={"channel_id": channel, "message_ids": [message]})).raise_for_status()


async def live(control: httpx.AsyncClient, sink: TimedSink, count: int) -> Timings:
    """Post one after another and wait for each; the seconds that each took to the sink."""
    timings = Timings()
    for _ in range(count):
        message = (await control.post("/messages", json={})).json()["messages"][0]
        key = (message["channel_id"], message["message_id"])
        await until(lambda key=key: key in sink.at, 60)
        timings.seconds.append(sink.at[key] - message["sent_at"])
        await asyncio.sleep(LIVE_SECONDS)
    return timings


async def live_until_complete(control: httpx.AsyncClient, sink: TimedSink, gateway: Gateway) -> Timings:
    """Live messages from the connection on, until nothing is open."""
    timings = Timings()
    await until(lambda: gateway.source.state == "connected", 60)
    while gateway.channels.open or not timings.seconds:
        timings.seconds += (await live(control, sink, 1)).seconds
    return timings


async def requests(control: httpx.AsyncClient) -> Counter[str]:
    """How often each method was called so far."""
    return Counter((await control.get("/health")).json()["requests"])


async def differences(control: httpx.AsyncClient, sink: TimedSink) -> int:
    """Messages whose last state in the sink is not what Telegram shows."""
    shown = (await control.get("/messages", params={"text": "true"})).json()["messages"]
    final: dict[tuple[int, int], str | None] = {}
    for entry in sink.entries:
        event = entry.event
        final[event.key] = None if event.kind == "delete" or event.content is None else event.content.text
    wanted = {(message["channel_id"], message["message_id"]): message["text"] for message in shown}
    missing = [key for key, text in wanted.items() if final.get(key) != text]
    surplus = [key for key, text in final.items() if text is not None and key not in wanted]
    return len(missing) + len(surplus)


def disorder(sink: TimedSink) -> int:
    """New messages that recovery brought behind a later one of their channel; live ones do not wait for it."""
    highest: dict[int, int] = defaultdict(int)
    count = 0
    for entry in sink.entries:
        event = entry.event
        if event.kind != "new" or event.message_date is None:
            continue
        if (event.received_at - event.message_date).total_seconds() < 2:  # live
            continue
        count += int(event.message_id < highest[event.channel_id])
        highest[event.channel_id] = max(highest[event.channel_id], event.message_id)
    return count


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
