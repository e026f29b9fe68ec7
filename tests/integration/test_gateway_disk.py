"""A full disk under the spool, a real one: it says so, stops at a safe point, and goes on without loss."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateways import Gateway, ListSink, post, running
from tests.integration.servers import until
from tests.integration.test_gateway_recovery import assert_same, edit_and_delete

from telegram_stack.gateway.health import Health, HealthCheck
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.spool import Entry
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile

RESERVE = 2 << 20


class SlowSink(ListSink):
    """Takes nothing while it is shut."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.open = asyncio.Event()

    async def write(self, batch: Sequence[Entry]) -> None:
        await self.open.wait()
        await super().write(batch)


@pytest.fixture
def disk(session: SessionFile) -> Iterator[Path]:
    """A file system of 8 MB in the gateway's folder."""
    folder = session.path.parent / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def health(gateway: Gateway, sinks: Sequence[ListSink]) -> Health:
    names = [sink.name for sink in sinks]
    return await HealthCheck(gateway.source, gateway.spool, gateway.channels, names, "test").check()


def fill(ballast: Path) -> None:
    """Write until the disk takes no more."""
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def post_long(telegram: Telegram, count: int) -> set[tuple[int, int]]:
    """Messages of 4 kB in one channel."""
    channel = next(iter(telegram.store.channels))
    drafts = [Draft(channel, f"{number} ".ljust(4000, "x")) for number in range(count)]
    return {(marked(message.channel_id), message.id) for message in telegram.post(drafts)}


@pytest.mark.requirement("GW-05")
@pytest.mark.requirement("GW-06")
async def test_a_disk_that_others_fill(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks, folder="disk", pending_limit=100, reserve_bytes=RESERVE) as gateway:
        await gateway.complete()
        post(telegram, 20, channel)
        await until(lambda: len(sinks[0].entries) == 20)
        assert (await health(gateway, sinks)).spool_reserve_bytes == RESERVE
        fill(disk / "ballast")
        while gateway.spool.failure is None:
            post(telegram, 20, channel)
            await asyncio.sleep(0.05)
        fill(disk / "more")  # what the reserve gave back is taken as well
        post(telegram, 500, channel)
        await until(lambda: gateway.reception.back_offs, 20)
        await until(lambda: not telegram.connections, 20)
        told = await health(gateway, sinks)
        assert (told.status, told.serving, told.spool_reserve_bytes) == ("unhealthy", False, 0)
        assert any(f"the disk of {disk} is full: its reserve" in cause for cause in told.causes)
        assert [r.levelname for r in caplog.records if "the spool cannot be written" in r.message] == ["ERROR"]
        assert gateway.spool.pending <= 100 + 256
        edit_and_delete(telegram, channel, [1, 400], [2, 399])
        post(telegram, 100, channel)

        (disk / "ballast").unlink()
        (disk / "more").unlink()
        await until(lambda: gateway.reception.connections >= 2, 20)
        await gateway.complete()
        await until(lambda: gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts, 20)
        await gateway.spool.commit()
        told = await health(gateway, sinks)
        assert (told.status, told.spool_reserve_bytes) == ("healthy", RESERVE)
    for sink in sinks:
        assert_same(telegram, sink, {(marked(channel), 2)})
        assert max(sink.keys().values()) == 1


@pytest.mark.requirement("GW-05")
async def test_a_disk_that_the_spool_itself_fills_is_freed_by_the_reserve(
    telegram: Telegram, session: SessionFile, disk: Path
) -> None:
    """Sinks that are away for long: when they are back, nobody has to make room by hand."""
    sinks = [SlowSink("database"), SlowSink("queue")]
    sinks[1].open.set()
    settings: dict[str, Any] = {"pending_limit": 200, "retain": 0, "reserve_bytes": RESERVE}
    sent: set[tuple[int, int]] = set()
    async with running(session, sinks, folder="disk", **settings) as gateway:
        await gateway.complete()
        full = 0.0
        while full < 2:  # until moving the log into the file does not help any more
            sent |= post_long(telegram, 20 if len(sent) < 5000 else 1)
            await asyncio.sleep(0.05)
            full = 0.0 if gateway.spool.failure is None else full + 0.05
        await until(lambda: gateway.reception.back_offs)
        await until(lambda: gateway.spool.lag("queue") == 0)
        told = await health(gateway, sinks)
        assert (told.status, told.spool_reserve_bytes) == ("unhealthy", 0)
        assert len(sent) > len(sinks[1].entries) > 200

        sinks[0].open.set()
        await until(lambda: gateway.reception.connections >= 2, 20)
        await until(lambda: sent <= set(sinks[0].keys()) & set(sinks[1].keys()), 30)
        await until(lambda: gateway.spool.reserve_bytes == RESERVE)
    assert [sink.keys() for sink in sinks] == [Counter(sent)] * 2
