"""What was given up is done again by the command `replay`."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.integration.consumers import (
    AlwaysFails,
    World,
    channel,
    delivery,
    needs_servers,
    recent,
    rows,
    world,
)
from tests.integration.workers import SIGNAL, Process, Rows

from telegram_stack import events
from telegram_stack.config import load
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.replay import Replay

__all__ = ["channel", "rows", "world"]  # fixtures

pytestmark = [needs_servers, pytest.mark.requirement("MQ-03")]


@pytest.fixture
def process(world: World) -> Iterator[Process]:
    """The program, which is not started."""
    made = world.process()
    yield made
    made.close()


@pytest.fixture
def config(process: Process, monkeypatch: pytest.MonkeyPatch) -> WorkerConfig:
    """The program's config, for this process."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(process.config.with_name("credentials")))
    return load(process.config, WorkerConfig)


async def give_up(world: World, *messages: int, channel: int, reason: str = "never") -> None:
    """Let these messages fail for the last time."""
    processor = world.processor(world.pool, AlwaysFails(reason))
    await processor.process([delivery(recent(channel, number), attempt=4) for number in messages])


def replay(process: Process, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of the command."""
    started = process.start("replay", *arguments)
    output, errors = started.communicate(timeout=30)
    assert errors == b""
    return started.returncode, output.decode().splitlines()


def waiting(world: World) -> list[int]:
    """Messages whose failure waits for a replay, in order."""
    with world.database.connect() as connection:
        found = connection.execute(
            "SELECT message_id FROM telegram.failures WHERE consumer = %s AND replayed_at IS NULL ORDER BY id",
            [world.consumer],
        )
        return [row[0] for row in found]


async def test_a_failure_is_done_once_and_marked(world: World, process: Process, rows: Rows, channel: int) -> None:
    await give_up(world, 1, 2, channel=channel)
    assert rows.states() == {1: "failed", 2: "failed"}
    code, lines = await asyncio.to_thread(replay, process)
    assert (code, lines[-1]) == (0, f"consumer {world.consumer}: 2 done")
    assert re.fullmatch(rf"\d+ {channel} 1 \S+Z attempts=4 done: handler failed: RuntimeError: never", lines[0])
    assert SIGNAL not in "".join(lines)
    assert rows.states() == {1: "published", 2: "published"}
    assert [row[:3] for row in rows.signals()] == [(1, "PETR4", 10), (2, "PETR4", 10)]
    assert waiting(world) == []
    before = rows.signals()
    assert await asyncio.to_thread(replay, process) == (0, [f"consumer {world.consumer}: nothing to do"])
    assert rows.signals() == before


async def test_it_takes_what_it_is_told_to(world: World, process: Process, rows: Rows, channel: int) -> None:
    await give_up(world, 1, channel=channel, reason="no such asset")
    await give_up(world, 2, 3, channel=channel, reason="NO ROUTE")
    dry = await asyncio.to_thread(replay, process, "--dry-run")
    assert (dry[0], len(dry[1]), dry[1][-1]) == (0, 4, f"consumer {world.consumer}: 3 waiting")
    assert waiting(world) == [1, 2, 3]
    assert (await asyncio.to_thread(replay, process, "--consumer", "nobody"))[1] == ["consumer nobody: nothing to do"]
    await asyncio.to_thread(replay, process, "--reason", "no route", "--limit", "1")
    assert waiting(world) == [1, 3]
    assert rows.states() == {1: "failed", 2: "published", 3: "failed"}


async def test_two_at_once_do_nothing_twice(world: World, process: Process, rows: Rows, channel: int) -> None:
    await give_up(world, *range(1, 61), channel=channel)
    both = await asyncio.gather(*(asyncio.to_thread(replay, process) for _ in range(2)))
    done: Counter[str] = Counter()
    for _, lines in both:
        done.update(word[1] for line in lines[:-1] if (word := re.search(r"attempts=4 ([a-z ]+):", line)))
    assert done["done"] == 60
    assert done.keys() <= {"done", "taken"}
    assert set(rows.states().values()) == {"published"}
    assert len(rows.signals()) == 60


async def test_what_was_edited_meanwhile_is_not_set_back(
    world: World, process: Process, rows: Rows, channel: int
) -> None:
    await give_up(world, 1, channel=channel)
    edit = recent(channel, 1, text=SIGNAL.replace("PETR4", "VALE3"), version=20, kind="edit")
    await world.processor(world.pool).process([delivery(edit)])
    assert (await asyncio.to_thread(replay, process))[1][-1] == f"consumer {world.consumer}: 1 superseded"
    assert [row[:3] for row in rows.signals()] == [(1, "VALE3", 20)]
    assert waiting(world) == []


async def test_what_cannot_be_done_yet_goes_on_waiting(
    world: World, process: Process, rows: Rows, channel: int
) -> None:
    headers = {"x-channel-id": channel}
    refused = recent(channel, 5, version=2**63)
    await world.processor(world.pool).process(
        [Delivery(1, b"\xff no event", 1, headers), Delivery(2, events.encode(refused), 1, headers)]
    )
    code, lines = await asyncio.to_thread(replay, process)
    assert (code, lines[-1]) == (1, f"consumer {world.consumer}: 1 refused, 1 unreadable")
    assert len(waiting(world)) == 2
    assert rows.signals() == []


async def test_what_fails_again_is_a_new_failure(
    config: WorkerConfig, world: World, rows: Rows, channel: int, capsys: pytest.CaptureFixture[str]
) -> None:
    await give_up(world, 1, channel=channel)
    assert await Replay(config, AlwaysFails("still"), world.consumer).run("", 10, dry_run=False) == 1
    assert "1 failed again" in capsys.readouterr().out
    assert [(row[2], row[4]) for row in rows.failures()] == [
        ("handler failed: RuntimeError: never", 4),
        ("handler failed: RuntimeError: still", 5),
    ]
    assert waiting(world) == [1]
    assert await Replay(config, AlwaysFails("still"), world.consumer).run("", 10, dry_run=False) == 1
    assert [row[4] for row in rows.failures()] == [4, 5, 6]
