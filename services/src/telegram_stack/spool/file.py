"""The spool's file: SQLite in WAL mode with ``synchronous=FULL``, its tables, and what they hold when it is opened."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from telegram_stack.events import SCHEMA_VERSION
from telegram_stack.spool.records import Channel, SpoolError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  spooled_at REAL NOT NULL,
  body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS events_once ON events (channel_id, message_id, version);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (
  channel_id INTEGER PRIMARY KEY,
  access_hash INTEGER,
  title TEXT,
  username TEXT,
  last_message_id INTEGER,
  pts INTEGER,
  registered INTEGER
);
CREATE TABLE IF NOT EXISTS quarantine (
  sink TEXT NOT NULL,
  seq INTEGER NOT NULL,
  reason TEXT NOT NULL,
  at REAL NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Contents:
    """What the file holds. `lowest` and `last` are the first and the last number of its events, 0 without any."""

    cursors: dict[str, int]
    channels: dict[int, Channel]
    lowest: int
    last: int


def create(path: Path) -> None:
    """Make sure that the file is there, for its owner alone. Raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file: a full disk gets back what was trimmed
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = FAST")  # Debian's SQLite would write each page that a trim frees
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # a thread of its own does it, off the commits
    return connection


def begin_anew(path: Path) -> None:
    """Forget how far each channel was read, and the events that every sink has. What waits for a sink stays.

    For a spool that no gateway has open. Raises SpoolError.
    """
    try:
        with contextlib.closing(connect(path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE channels SET last_message_id = NULL, pts = NULL")
            connection.execute("DELETE FROM events WHERE seq <= (SELECT min(seq) FROM cursors)")
    except sqlite3.Error as error:
        raise SpoolError(f"the spool {path} cannot be written: {error}") from error


def prepare(path: Path, writer: sqlite3.Connection, sinks: Iterable[str]) -> Contents:
    """Make the tables where they are missing, begin the cursors of `sinks`, and read what there is.

    Raises SpoolError for a file that a newer gateway has written, sqlite3.Error.
    """
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise SpoolError(
            f"the spool {path} was written by a newer gateway (event schema {version}, this one knows "
            f"{SCHEMA_VERSION}): install that version again and let it empty the spool"
        )
    writer.executescript(_SCHEMA)
    writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    (last,) = writer.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'").fetchone()
    (lowest,) = writer.execute("SELECT coalesce(min(seq), 0) FROM events").fetchone()
    return Contents(_begin_cursors(writer, sinks), _channels(writer), lowest, last)


def _begin_cursors(writer: sqlite3.Connection, sinks: Iterable[str]) -> dict[str, int]:
    """A sink that is gone must not hold the trimming; a new one gets what the others have not got either."""
    known = dict(writer.execute("SELECT sink, seq FROM cursors").fetchall())
    wanted = list(sinks)
    begin = min((known[sink] for sink in wanted if sink in known), default=0)
    cursors = {sink: known.get(sink, begin) for sink in wanted}
    writer.execute("DELETE FROM cursors")
    writer.executemany("INSERT INTO cursors VALUES (?, ?)", cursors.items())
    return cursors


def _channels(writer: sqlite3.Connection) -> dict[int, Channel]:
    names = Channel.__struct_fields__
    rows = writer.execute(f"SELECT {', '.join(names)} FROM channels")  # noqa: S608 - the names of our own fields
    found = (msgspec.convert(dict(zip(names, row, strict=True)), Channel, strict=False) for row in rows)
    return {channel.channel_id: channel for channel in found}
