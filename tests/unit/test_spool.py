"""The spool: what is committed stays, what is not is never counted as done."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telegram_stack.events import Content, Event, version_of
from telegram_stack.spool import Channel, Entry, Spool, SpoolError, SpoolFullError, begin_anew
from telegram_stack.spool.reader import Reader

CHANNEL = -1001
SINKS = ("database", "queue")


def event(message_id: int, text: str = "hello") -> Event:
    content = Content(text=text)
    date = datetime(2026, 5, 4, tzinfo=UTC)
    return Event(
        kind="new",
        channel_id=CHANNEL,
        message_id=message_id,
        version=version_of(content, date, None),
        received_at=date,
        message_date=date,
        content=content,
    )


def events(*message_ids: int) -> list[Event]:
    return [event(message_id) for message_id in message_ids]


@asynccontextmanager
async def opened(folder: Path, sinks: tuple[str, ...] = SINKS, **settings: Any) -> AsyncIterator[Spool]:
    spool = Spool(folder / "spool.db", sinks, **settings)
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close(wait=2)


async def take(spool: Spool, sink: str, count: int, limit: int = 256) -> list[Entry]:
    found: list[Entry] = []
    async with asyncio.timeout(5):
        async for batch in spool.batches(sink, limit):
            found += batch
            spool.advance(sink, batch[-1].seq)
            if len(found) >= count:
                break
    return found


def ids(entries: list[Entry]) -> list[int]:
    return [entry.event.message_id for entry in entries]


@pytest.mark.requirement("GW-05")
async def test_each_sink_reads_everything_in_order_behind_its_own_cursor(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit(events(*range(1, 11)))
        assert ids(await take(spool, "database", 10, limit=3)) == list(range(1, 11))
        assert (spool.lag("database"), spool.lag("queue")) == (0, 10)
        assert ids(await take(spool, "queue", 10)) == list(range(1, 11))


def file_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions behind which the file is read from now on."""
    read: list[int] = []
    entries = Reader._entries

    def counted(self: Reader, position: int, limit: int) -> list[Entry]:
        read.append(position)
        return entries(self, position, limit)

    monkeypatch.setattr(Reader, "_entries", counted)
    return read


async def test_sinks_at_their_own_pace_miss_nothing_and_do_not_read_twice_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telegram_stack.spool.reader._TAIL", 8)
    read = file_reads(monkeypatch)
    async with opened(tmp_path) as spool:
        await spool.commit(events(*range(1, 31)))
        assert ids(await take(spool, "database", 25, limit=5)) == list(range(1, 26))
        assert ids(await take(spool, "queue", 17, limit=3)) == list(range(1, 19))
        assert ids(await take(spool, "database", 5)) == list(range(26, 31))
        before = len(read)
        assert ids(await take(spool, "queue", 4, limit=4)) == list(range(19, 23))  # older than the tail
        assert len(read) == before + 1
        assert ids(await take(spool, "queue", 8)) == list(range(23, 31))
        assert len(read) == before + 1


async def test_what_was_just_committed_is_not_read_from_the_file_unless_part_of_it_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = file_reads(monkeypatch)
    many = events(*range(1, 601))  # more than a statement takes
    async with opened(tmp_path) as spool:
        await spool.commit(many)
        kept = await take(spool, "database", 600)
        assert read == []
        await spool.commit([*many[590:], *events(601, 602)])
        assert ids(await take(spool, "database", 2)) == [601, 602]
        assert read == [600]
    async with opened(tmp_path) as spool:
        assert (await take(spool, "queue", 602))[:600] == kept  # as the file has it: number, event, body and time


async def test_a_waiting_sink_wakes_when_something_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        waiting = asyncio.create_task(take(spool, "database", 2))
        await asyncio.sleep(0)
        spool.append(events(1))
        spool.append(events(2))
        assert ids(await waiting) == [1, 2]


@pytest.mark.requirement("GW-10")
async def test_events_and_cursors_survive_a_close(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        spool.append(events(1, 2, 3))  # not awaited: close commits it
        await spool.commit()
        await take(spool, "database", 2, limit=2)
    async with opened(tmp_path) as spool:
        assert ids(await take(spool, "database", 1)) == [3]
        assert ids(await take(spool, "queue", 3)) == [1, 2, 3]


@pytest.mark.requirement("GW-10")
async def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from tests.unit.test_spool import Spool, SINKS, events

async def main():
    spool = Spool(Path({str(tmp_path)!r}) / "spool.db", SINKS)
    await spool.open()
    for number in range(1, 100_000):
        await spool.commit(events(number))
        print(number, flush=True)

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root}:{root / 'services' / 'src'}"}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 50:
        acknowledged = int(process.stdout.readline() or "1000000")
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged = max([acknowledged, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
    async with opened(tmp_path) as spool:
        found = ids(await take(spool, "database", acknowledged))
    assert found[:acknowledged] == list(range(1, acknowledged + 1))


async def test_many_appends_share_a_commit(tmp_path: Path) -> None:
    groups: list[int] = []
    async with opened(tmp_path, linger_ms=50, group_limit=100) as spool:
        spool.on_commit = lambda size, _seconds: groups.append(size)
        for number in range(250):
            spool.append(events(number + 1))
        await spool.commit()
    assert sum(groups) == 250
    assert max(groups) == 100
    assert len(groups) <= 4


async def test_the_same_state_twice_is_one_entry(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit([event(1), event(1), event(1, "edited")])
        await spool.commit([event(1)])
        await spool.commit([event(2)])
        assert [entry.event.content for entry in await take(spool, "database", 3)] == [
            Content(text="hello"),
            Content(text="edited"),
            Content(text="hello"),
        ]


async def test_progress_commits_with_its_events(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit(events(1), [Channel(channel_id=CHANNEL, last_message_id=1, pts=5, title="a")])
        await spool.commit(events(2), [Channel(channel_id=CHANNEL, last_message_id=2, pts=6, registered=True)])
    async with opened(tmp_path) as spool:
        assert spool.stored_channels() == {
            CHANNEL: Channel(channel_id=CHANNEL, last_message_id=2, pts=6, registered=True)
        }


async def test_trimming_stays_behind_the_slowest_sink(tmp_path: Path) -> None:
    def kept() -> list[int]:
        with sqlite3.connect(tmp_path / "spool.db") as connection:
            return [row[0] for row in connection.execute("SELECT message_id FROM events ORDER BY seq")]

    async with opened(tmp_path, retain=2) as spool:
        await spool.commit(events(*range(1, 21)))
        await take(spool, "database", 20)
        spool.advance("queue", 10)
        async with asyncio.timeout(10):
            while kept() != list(range(9, 21)):
                await asyncio.sleep(0.05)
        spool.advance("queue", 20)
        async with asyncio.timeout(10):
            while kept() != [19, 20]:
                await asyncio.sleep(0.05)
    async with opened(tmp_path, retain=2) as spool:  # numbers go on where they were
        await spool.commit(events(30))
        assert spool.last_seq == 21


async def test_a_flood_trims_as_it_writes(tmp_path: Path) -> None:
    async with opened(tmp_path, ("database",), retain=100) as spool:
        flood = asyncio.get_running_loop().time() + 3  # longer than the trimming of a calm spool takes to begin
        number = 0
        while asyncio.get_running_loop().time() < flood:
            await spool.commit(events(*range(number + 1, number + 51)))
            number += 50
            spool.advance("database", number)
        with sqlite3.connect(tmp_path / "spool.db") as connection:
            (kept,) = connection.execute("SELECT count(*) FROM events").fetchone()
        assert number > 1000
        assert kept <= 100 + 100 + 50, "what is retained, less than a step, and the last group"


async def test_a_sink_that_is_gone_does_not_hold_the_others_and_a_new_one_begins_with_the_slowest(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, ("database", "queue")) as spool:
        await spool.commit(events(1, 2, 3))
        await take(spool, "database", 2, limit=2)
    async with opened(tmp_path, ("database",)) as spool:
        assert spool.cursor("database") == 2
    async with opened(tmp_path, ("database", "queue")) as spool:
        assert spool.cursor("queue") == 2


async def test_quarantine_outlives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit(events(1, 2))
        (first, _) = await take(spool, "database", 2)
        await spool.quarantine("database", [first], "bad text")
    async with opened(tmp_path) as spool:
        assert await spool.quarantined() == {"database": 1}


async def test_notes_outlive_a_restart_and_many_at_once_do_not_meet(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        assert await spool.noted("a") is None
        for _ in range(20):
            await asyncio.gather(*(spool.note("a", b"%d" % number) for number in range(50)))
    async with opened(tmp_path) as spool:
        assert await spool.noted("a") == b"49"


async def test_what_was_released_is_not_in_quarantine_any_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit(events(1, 2, 3))
        refused = await take(spool, "database", 3)
        await spool.quarantine("database", refused, "bad text")
        await spool.release("database", [refused[1].seq])
        assert ids(await spool.quarantine_entries("database", 0, 10)) == [1, 3]
        assert ids(await spool.quarantine_entries("database", refused[0].seq, 10)) == [3]
        assert await spool.quarantined() == {"database": 2}


class Disk:
    """Stands between the spool and SQLite and says when the disk is full."""

    full = False

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._connection = sqlite3.Connection(*arguments, **settings)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        if Disk.full and "INTO events" in sql:
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_full_disk_holds_events_up_to_a_limit_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "full", False)
    monkeypatch.setattr(sqlite3, "connect", Disk)
    async with opened(tmp_path, pending_limit=3) as spool:
        Disk.full = True
        spool.append(events(1, 2, 3))
        with pytest.raises(SpoolFullError, match="3 events wait"):
            spool.append(events(4))
        async with asyncio.timeout(5):
            while spool.failure is None:
                await asyncio.sleep(0.01)
        assert spool.last_seq == 0
        Disk.full = False
        await spool.commit(events())
        assert spool.failure is None
        spool.append(events(4))
        assert ids(await take(spool, "database", 4)) == [1, 2, 3, 4]


async def test_closing_tells_how_many_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "full", False)
    monkeypatch.setattr(sqlite3, "connect", Disk)
    spool = Spool(tmp_path / "spool.db", SINKS)
    await spool.open()
    Disk.full = True
    spool.append(events(1, 2), [Channel(channel_id=CHANNEL, last_message_id=2)])
    assert await spool.close(wait=0.1) == 2
    Disk.full = False
    async with opened(tmp_path) as reopened:
        assert reopened.stored_channels() == {}  # progress never passes its events


async def test_an_unusable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(SpoolError, match=r"spool\.db cannot be opened: file is not a database"):
        await Spool(tmp_path / "spool.db", SINKS).open()


async def test_a_newer_spool_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SpoolError, match="written by a newer gateway"):
        await Spool(tmp_path / "spool.db", SINKS).open()


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.commit(events(1))
        for file in tmp_path.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name


async def test_a_spool_that_begins_anew_forgets_its_places_and_keeps_what_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        place = Channel(channel_id=CHANNEL, access_hash=7, last_message_id=3, pts=9, registered=True)
        await spool.commit(events(1, 2, 3), [place])
        await take(spool, "database", 3)
        await take(spool, "queue", 2, limit=2)
    begin_anew(tmp_path / "spool.db")
    async with opened(tmp_path) as spool:
        assert spool.stored_channels() == {CHANNEL: Channel(channel_id=CHANNEL, access_hash=7, registered=True)}
        assert [entry.event.message_id for entry in await take(spool, "queue", 1)] == [3]
        assert spool.lag("database") == 0
        assert await spool.first_new(CHANNEL) == 3


async def test_a_spool_that_cannot_begin_anew_says_why(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_text("no database at all" * 100)
    with pytest.raises(SpoolError, match=r"spool\.db cannot be written: file is not a database"):
        begin_anew(tmp_path / "spool.db")
