"""The writing side of the spool: one thread commits in groups and trims, another one checkpoints."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from telegram_stack.events import Event
from telegram_stack.lingering import Linger
from telegram_stack.spool.file import connect
from telegram_stack.spool.records import Channel, Entry, SpoolFullError
from telegram_stack.spool.reserve import Reserve

log = logging.getLogger(__name__)

_CURSOR_SECONDS = 0.2
_TRIM_SECONDS = 1.0  # with _TRIM_STEP: 5,000 events a second at most, 10 ms a step, while nothing comes
_TRIM_STEP = 5_000
_TRIM_ALONG = (100, 500)  # events that a group's commit takes away, at least and at most: 1 ms for 100
_TRIM_WORTH = 1_000  # events: while the disk is full, less costs more log than it frees
_VACUUM_PAGES = 500  # 2 MB of log a step at most
_CHECKPOINT_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_ROWS = 256  # of one statement: SQLite takes 32,766 parameters

Done = Callable[[Exception | None], None]


class Work(msgspec.Struct):
    """Events with their bodies, and what commits with them.

    `done` is called with None, or with why it could not be written.
    """

    events: list[tuple[Event, bytes]]
    channels: Sequence[Channel]
    done: Done | None = None


@dataclass(frozen=True)
class Committed:
    """The newest entry's number, and the group's own entries where all of its events were new to the file."""

    last: int
    entries: Sequence[Entry]


Finish = Callable[[Sequence[Work], Committed | Exception], None]


_INSERT_EVENTS = "INSERT OR IGNORE INTO events (channel_id, message_id, version, spooled_at, body)"
_INSERT_CHANNELS = "INSERT INTO channels (channel_id, access_hash, title, username, last_message_id, pts, registered)"
_UPDATE = """ON CONFLICT (channel_id) DO UPDATE SET
  access_hash = excluded.access_hash, title = excluded.title, username = excluded.username,
  last_message_id = excluded.last_message_id, pts = excluded.pts, registered = excluded.registered"""


def _insert(writer: sqlite3.Connection, into: str, rows: Sequence[Sequence[object]], conflict: str = "") -> int:
    """Insert `rows`, many a statement; returns how many were new.

    A statement a row would give the interpreter's lock away and ask for it again with each, and hold the loop up.
    """
    new = 0
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        row = f"({', '.join('?' * len(some[0]))})"
        values = ", ".join([row] * len(some))
        statement = f"{into} VALUES {values} {conflict}"
        new += writer.execute(statement, list(chain.from_iterable(some))).rowcount
    return new


class _DiskFullError(sqlite3.OperationalError):
    """There is no room for events."""


class Writer:
    """Commits what it is given, in order, and keeps the file short behind the slowest cursor."""

    def __init__(
        self,
        path: Path,
        cursors: Mapping[str, int],
        *,
        reserve: Reserve,
        linger: Linger,
        group_limit: int,
        retain: int,
        finish: Finish,
        committed: Callable[[int, float], None],
        failed: Callable[[str | None], None],
    ) -> None:
        """`cursors` are the loop's own and move on. The last three are called in the writer's thread.

        `finish` gets a group, and what was committed or why it could not be before the end. `committed` gets a group's
        events and seconds, `failed` why nothing can be written now, None when it can again.
        """
        self._path = path
        self._cursors = cursors
        self._reserve = reserve
        self._linger = linger
        self._group_limit = group_limit
        self._retain = retain
        self._finish = finish
        self._committed = committed
        self._failed = failed
        self._work: deque[Work] = deque()
        self._queued = 0  # events in `_work`: guarded by `_wake`
        self._wake = threading.Condition()
        self._stop = threading.Event()
        self._moved = False
        self._lowest = self._last = 0
        self._threads: list[threading.Thread] = []
        self._failure: str | None = None

    def start(self, connection: sqlite3.Connection, lowest: int, last: int) -> None:
        """Begin; `connection` is the writer's from now on, `lowest` and `last` are numbers of events."""
        self._lowest, self._last = lowest, last
        self._threads = [
            threading.Thread(target=self._write_loop, args=(connection,), name="spool-writer", daemon=True),
            threading.Thread(target=self._checkpoint_loop, name="spool-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether the threads are there."""
        return all(thread.is_alive() for thread in self._threads)

    def put(self, work: Work) -> None:
        """Commit `work` behind everything that was put before."""
        with self._wake:
            first = not self._work
            self._queued += len(work.events)
            self._work.append(work)
            if first or self._queued >= self._group_limit:  # it lingers meanwhile: to wake it for each costs more
                self._wake.notify()

    def move(self) -> None:
        """A cursor has moved: keep that within 0.2 s."""
        self._moved = True

    def stop(self) -> None:
        """Write what waits, if that is possible at once, and end."""
        self._stop.set()
        with self._wake:
            self._wake.notify()

    def join(self, wait: float) -> None:
        """Wait for the end, `wait` seconds a thread at most."""
        for thread in self._threads:
            thread.join(wait)

    # In the writer's thread

    def _write_loop(self, writer: sqlite3.Connection) -> None:
        trimmed = finished = time.monotonic()
        while True:
            group = self._next_group()
            if group or self._moved:
                self._write_until_done(writer, group)
                now = time.monotonic()
                self._linger.observe(sum(len(work.events) for work in group), now - finished)
                finished = now
            elif self._stop.is_set():
                break
            if not group and time.monotonic() - trimmed > _TRIM_SECONDS:
                trimmed = time.monotonic()
                with suppress(sqlite3.Error):  # a full disk: the next commit reports it
                    self._trim(writer)
        writer.close()

    def _next_group(self) -> list[Work]:
        with self._wake:
            if not self._work and not self._stop.is_set():
                self._wake.wait(_CURSOR_SECONDS)
            if not self._work:
                return []
            if not self._stop.is_set():
                self._wake.wait_for(
                    lambda: self._queued >= self._group_limit or self._stop.is_set(), self._linger.seconds
                )
            group: list[Work] = []
            size = 0
            while self._work and (not group or size + len(self._work[0].events) <= self._group_limit):
                group.append(self._work.popleft())
                size += len(group[-1].events)
            self._queued -= size
            return group

    def _write_until_done(self, writer: sqlite3.Connection, group: list[Work]) -> None:
        """The group goes first or nothing does: a channel's progress must never pass its events."""
        events = sum(len(work.events) for work in group)
        while True:
            begun = time.perf_counter()
            self._moved = False
            try:
                if not self._reserve.held:
                    self._make_room(writer)
                committed = self._write(writer, group)
            except (sqlite3.Error, OSError) as error:
                self._moved = True
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                self._note_failure(error)
                if self._stop.wait(_RETRY_SECONDS):
                    self._moved = False
                    self._finish(group, SpoolFullError(str(error)))
                    return
            else:
                break
        self._note_success()
        if events:
            self._committed(events, time.perf_counter() - begun)
        self._finish(group, committed)

    def _note_failure(self, error: Exception) -> None:
        reason = str(error)
        if _full(error):
            self._reserve.release()
            if self._reserve.wanted:
                reason = (
                    f"the disk of {self._path.parent} is full: its reserve of {self._reserve.wanted:,} bytes is given "
                    f"up for trimming, and events are written again when there is room for it"
                )
        if self._failure != reason:
            log.error(
                "the spool cannot be written: %s; events wait in memory", reason, extra={"spool": str(self._path)}
            )
        self._failure = reason
        self._failed(reason)

    def _note_success(self) -> None:
        if self._failure is not None:
            log.warning("the spool is written again", extra={"spool": str(self._path)})
            self._failure = None
            self._failed(None)

    def _write(self, writer: sqlite3.Connection, group: Sequence[Work]) -> Committed:
        now = time.time()
        events = [pair for work in group for pair in work.events]
        rows = [(event.channel_id, event.message_id, event.version, now, body) for event, body in events]
        # the last word on each channel
        channels = {channel.channel_id: channel for work in group for channel in work.channels}
        writer.execute("BEGIN IMMEDIATE")
        new = _insert(writer, _INSERT_EVENTS, rows)
        _insert(writer, _INSERT_CHANNELS, [msgspec.structs.astuple(channel) for channel in channels.values()], _UPDATE)
        trimmed = self._trimmed_along(writer)
        self._save_cursors(writer)
        (last,) = writer.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        writer.execute("COMMIT")
        self._lowest += trimmed
        first, self._last = self._last + 1, int(last)
        if new < len(rows) or self._last - first + 1 != new:  # some were known: which numbers, only the file knows
            return Committed(self._last, ())
        return Committed(self._last, [Entry(seq, event, body, now) for seq, (event, body) in enumerate(events, first)])

    def _save_cursors(self, writer: sqlite3.Connection) -> None:
        _insert(writer, "INSERT OR REPLACE INTO cursors (sink, seq)", list(self._cursors.items()))

    # Keeping it short

    def _trimmable(self) -> int:
        """How many numbers stand behind the slowest sink and what is retained."""
        return min(self._cursors.values(), default=self._last) - self._retain - self._lowest + 1

    def _trim(self, writer: sqlite3.Connection) -> None:
        """One step. Raises sqlite3.Error."""
        count = min(self._trimmable(), _TRIM_STEP)
        if count > 0:
            self._delete(writer, count)
            self._lowest += count

    def _trimmed_along(self, writer: sqlite3.Connection) -> int:
        """How many a group's commit takes away: in a flood a step of its own would hold up the groups behind it."""
        least, most = _TRIM_ALONG
        count = min(self._trimmable(), most)
        if count < least:
            return 0
        self._delete(writer, count)
        return count

    def _delete(self, writer: sqlite3.Connection, count: int) -> None:
        writer.execute("DELETE FROM events WHERE seq < ?", (self._lowest + count,))

    def _make_room(self, writer: sqlite3.Connection) -> None:
        """Without the reserve: give the disk back what can be spared, until the reserve fits in again.

        Every write here takes from the room that the reserve has left, so there are few.
        Raises sqlite3.Error: there is not enough to spare.
        """
        self._shrink(writer)
        while not self._stop.is_set():
            idle = min(self._cursors.values(), default=0) >= self._last  # more will not come to be trimmed
            if self._trimmable() < (1 if idle else _TRIM_WORTH):
                break
            self._save_cursors(writer)  # what is trimmed must not be asked for after a crash
            self._trim(writer)
            self._shrink(writer)
        if not self._reserve.make():
            raise _DiskFullError("there is no room for the reserve")

    def _shrink(self, writer: sqlite3.Connection) -> None:
        """Move the log into the file, and cut off what is free of it, in steps."""
        (mode,) = writer.execute("PRAGMA auto_vacuum").fetchone()
        while True:
            if self._log_fits(writer):
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            (free,) = writer.execute("PRAGMA freelist_count").fetchone()
            if not free or not mode:
                return
            # `execute` would take one step of it: one page.
            writer.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def _log_fits(self, writer: sqlite3.Connection) -> bool:
        """Whether the file can grow by what the log holds; half a checkpoint would take room and free none."""
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        (size,) = writer.execute("PRAGMA page_size").fetchone()
        disk = os.statvfs(self._path.parent)
        return bool(pages * size - self._path.stat().st_size <= disk.f_bavail * disk.f_frsize)

    # In the checkpoint's thread

    def _checkpoint_loop(self) -> None:
        connection = connect(self._path)
        while not self._stop.wait(_CHECKPOINT_SECONDS):
            if not self._reserve.held:
                continue  # the writer makes room
            with suppress(sqlite3.Error):  # the writer reports what is wrong with the disk
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        connection.close()


def _full(error: Exception) -> bool:
    """Whether the disk is the reason. Where the log's index cannot grow SQLite says that input or output failed."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _DiskFullError) or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
