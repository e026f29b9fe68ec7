"""What the simulated Telegram remembers: keys, accounts, channels, messages and every channel's update log.

One SQLite file in WAL mode. A change is committed before any client hears of it, so a killed simulator
never takes a message or a pts back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from telegram_stack.simulator.crypto import ServerKey, auth_key_id
from telegram_stack.simulator.model import (
    PLAIN,
    Account,
    AuthKeyRecord,
    Change,
    Channel,
    ChannelKind,
    Details,
    Draft,
    LoginCode,
    Message,
    UnknownChannelError,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
  id INTEGER PRIMARY KEY, phone TEXT NOT NULL UNIQUE, salt1 BLOB, salt2 BLOB, verifier BLOB);
CREATE TABLE IF NOT EXISTS auth_keys (
  id BLOB PRIMARY KEY, key BLOB NOT NULL, account_id INTEGER, awaits_password INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS codes (
  phone TEXT PRIMARY KEY, code TEXT NOT NULL, hash TEXT NOT NULL, sent_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (
  id INTEGER PRIMARY KEY, title TEXT NOT NULL, username TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL,
  pts INTEGER NOT NULL, last_message_id INTEGER NOT NULL, shown INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  kind TEXT NOT NULL DEFAULT 'channel');
CREATE TABLE IF NOT EXISTS messages (
  channel_id INTEGER NOT NULL, id INTEGER NOT NULL, sent_at REAL NOT NULL, text TEXT NOT NULL,
  has_photo INTEGER NOT NULL, edit_date INTEGER, edit_pts INTEGER, deleted INTEGER NOT NULL DEFAULT 0,
  details TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (channel_id, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
  channel_id INTEGER NOT NULL, pts INTEGER NOT NULL, kind TEXT NOT NULL, message_ids TEXT NOT NULL,
  PRIMARY KEY (channel_id, pts)) WITHOUT ROWID;
"""

_LATER_COLUMNS = {"channels": "kind TEXT NOT NULL DEFAULT 'channel'", "messages": "details TEXT NOT NULL DEFAULT '{}'"}
"""Not in the files of the first version."""

_FIRST_ACCOUNT = 5_000_000_001
_FIRST_CHANNEL = 1_500_000_001

_MESSAGE = "channel_id, id, sent_at, text, has_photo, edit_date, edit_pts, deleted, details"


class Clock:
    """Telegram's clock, which need not agree with ours: it is `drift` seconds ahead."""

    drift = 0.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.drift


class Store:
    """The file. Methods are quick and synchronous: a commit waits for no disk (``synchronous=NORMAL``)."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        for table, column in _LATER_COLUMNS.items():
            if column.split()[0] not in {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        self.clock = Clock()
        self._secret = self._meta("secret", lambda: os.urandom(32))
        self.server_key = ServerKey(self._meta("server_key", ServerKey.generate))
        self.channels: dict[int, Channel] = {}
        """Every channel by its id, always as the file has it."""
        self._load_channels()
        self._keys: dict[bytes, AuthKeyRecord] = {}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _load_channels(self) -> None:
        rows = self._db.execute("SELECT * FROM channels ORDER BY id")
        self.channels = {row[0]: Channel(*row) for row in rows}

    def _meta(self, name: str, make: Callable[[], bytes]) -> bytes:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            row = (make(),)
            self._db.execute("INSERT INTO meta VALUES (?, ?)", (name, row[0]))
        return bytes(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            self._load_channels()
            raise
        self._db.execute("COMMIT")

    def hash_of(self, *numbers: int) -> int:
        """A stable, unguessable 64-bit number: access hashes and salts."""
        digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), key=self._secret, digest_size=8)
        return int.from_bytes(digest.digest(), "little", signed=True)

    # accounts and keys

    def account(self, phone: str) -> Account:
        """The account of `phone`, made on first use: every number belongs to somebody here."""
        row = self._db.execute("SELECT * FROM accounts WHERE phone = ?", (phone,)).fetchone()
        if row is None:
            (highest,) = self._db.execute("SELECT max(id) FROM accounts").fetchone()
            number = _FIRST_ACCOUNT if highest is None else highest + 1
            self._db.execute("INSERT INTO accounts (id, phone) VALUES (?, ?)", (number, phone))
            row = (number, phone, None, None, None)
        return Account(*row)

    def account_by_id(self, account_id: int) -> Account:
        """The account with this id, which must exist."""
        return Account(*self._db.execute("SELECT * FROM accounts WHERE id = ?", (account_id,)).fetchone())

    def set_password(self, phone: str, salt1: bytes | None, salt2: bytes | None, verifier: bytes | None) -> None:
        """Set or, with None, remove the second factor."""
        account = self.account(phone)
        self._db.execute(
            "UPDATE accounts SET salt1 = ?, salt2 = ?, verifier = ? WHERE id = ?", (salt1, salt2, verifier, account.id)
        )

    def add_key(self, key: bytes, account_id: int | None = None) -> AuthKeyRecord:
        """Remember a new key, authorised for `account_id` or for nobody yet."""
        record = AuthKeyRecord(auth_key_id(key), key, account_id, False, False)
        self._put_key(record)
        return record

    def key(self, key_id: bytes) -> AuthKeyRecord | None:
        """The key with this id."""
        if key_id not in self._keys:
            row = self._db.execute("SELECT * FROM auth_keys WHERE id = ?", (key_id,)).fetchone()
            if row is None:
                return None
            self._keys[key_id] = AuthKeyRecord(row[0], row[1], row[2], bool(row[3]), bool(row[4]))
        return self._keys[key_id]

    def authorise(self, record: AuthKeyRecord, account_id: int | None, *, awaits_password: bool = False) -> None:
        """Log the key in, half-way in, or (None) out."""
        self._put_key(AuthKeyRecord(record.id, record.key, account_id, awaits_password, record.dead))

    def kill_key(self, record: AuthKeyRecord) -> None:
        """The key is never accepted again."""
        self._put_key(AuthKeyRecord(record.id, record.key, None, False, True))

    def _put_key(self, record: AuthKeyRecord) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO auth_keys VALUES (?, ?, ?, ?, ?)",
            (record.id, record.key, record.account_id, record.awaits_password, record.dead),
        )
        self._keys[record.id] = record

    def new_code(self, phone: str) -> LoginCode:
        """Make and remember a login code for `phone`; the one before is void."""
        code = LoginCode(f"{secrets.randbelow(90000) + 10000}", secrets.token_hex(9), self.clock())
        self._db.execute(
            "INSERT OR REPLACE INTO codes VALUES (?, ?, ?, ?)", (phone, code.code, code.hash, code.sent_at)
        )
        return code

    def code(self, phone: str) -> LoginCode | None:
        """The last code sent to `phone`."""
        row = self._db.execute("SELECT code, hash, sent_at FROM codes WHERE phone = ?", (phone,)).fetchone()
        return LoginCode(*row) if row else None

    def drop_code(self, phone: str) -> None:
        """The code was used or cancelled."""
        self._db.execute("DELETE FROM codes WHERE phone = ?", (phone,))

    # channels and messages

    def channel(self, channel_id: int) -> Channel:
        """The channel with this bare id. Raises UnknownChannelError."""
        try:
            return self.channels[channel_id]
        except KeyError:
            raise UnknownChannelError(f"there is no channel {channel_id}") from None

    def add_channels(self, title: str, count: int, kind: ChannelKind = "channel") -> list[Channel]:
        """Make `count` channels; with more than one, their titles are numbered by their place among all."""
        added = []
        now = int(self.clock())
        with self._transaction():
            for _ in range(count):
                channel_id = _FIRST_CHANNEL + len(self.channels)
                name = title if count == 1 else f"{title} {len(self.channels) + 1}"
                channel = Channel(channel_id, name, f"canal{channel_id}", now, 1, 0, 0, now, kind)
                self._db.execute("INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(channel))
                self.channels[channel_id] = channel
                added.append(channel)
        return added

    @property
    def sequence(self) -> int:
        """How many messages were ever posted."""
        return sum(channel.last_message_id for channel in self.channels.values())

    def post(self, drafts: Sequence[Draft]) -> list[tuple[Change, Message]]:
        """Post messages, in this order, in one transaction. Raises UnknownChannelError and posts nothing."""
        touched = {draft.channel_id: self.channel(draft.channel_id) for draft in drafts}
        now = self.clock()
        posted = [self._next(touched[draft.channel_id], draft, now) for draft in drafts]
        self._insert(posted, touched.values())
        return posted

    def backfill(self, channel_id: int, drafts: Sequence[Draft], after_id: int, seconds: float) -> list[Message]:
        """Give a channel a past: messages above `after_id`, evenly over the last `seconds`, which nobody is told of.

        Raises UnknownChannelError, and ValueError when the channel has messages.
        """
        channel = self.channel(channel_id)
        if channel.last_message_id:
            raise ValueError(f"channel {channel_id} has messages: a history can only be given to an empty one")
        channel.last_message_id = after_id
        step = seconds / max(1, len(drafts))
        first = self.clock() - seconds
        posted = [self._next(channel, draft, first + step * place) for place, draft in enumerate(drafts)]
        self._insert(posted, [channel])
        return [message for _, message in posted]

    def _next(self, channel: Channel, draft: Draft, sent_at: float) -> tuple[Change, Message]:
        channel.last_message_id += 1
        channel.pts += 1
        channel.shown += 1
        message = Message(
            channel.id, channel.last_message_id, sent_at, draft.text, draft.has_photo, details=draft.details
        )
        return Change(channel.id, channel.pts, "new", (message.id,)), message

    def _insert(self, posted: Sequence[tuple[Change, Message]], channels: Iterable[Channel]) -> None:
        with self._transaction():
            self._db.executemany(
                "INSERT INTO messages (channel_id, id, sent_at, text, has_photo, details) VALUES (?, ?, ?, ?, ?, ?)",
                [(m.channel_id, m.id, m.sent_at, m.text, m.has_photo, _details(m.details)) for _, m in posted],
            )
            self._log([change for change, _ in posted], channels, int(self.clock()))

    def edit(self, channel_id: int, message_id: int, text: str) -> tuple[Change, Message] | None:
        """Change a message's text; None when it is not shown."""
        channel = self.channel(channel_id)
        if not self.messages(channel_id, [message_id]):
            return None
        now = int(self.clock())
        channel.pts += 1
        change = Change(channel_id, channel.pts, "edit", (message_id,))
        with self._transaction():
            self._db.execute(
                "UPDATE messages SET text = ?, edit_date = ?, edit_pts = ? WHERE channel_id = ? AND id = ?",
                (text, now, change.pts, channel_id, message_id),
            )
            self._log([change], [channel], now)
        return change, self.messages(channel_id, [message_id])[message_id]

    def reveal(self, channel_id: int, message_id: int) -> tuple[Change, Message] | None:
        """Make the preview of a message's link; None when it is not shown or has none that is pending."""
        channel = self.channel(channel_id)
        message = self.messages(channel_id, [message_id]).get(message_id)
        if message is None or not message.details.pending:
            return None
        details = msgspec.structs.replace(message.details, pending=False)
        channel.pts += 1
        change = Change(channel_id, channel.pts, "preview", (message_id,))
        with self._transaction():
            self._db.execute(
                "UPDATE messages SET details = ? WHERE channel_id = ? AND id = ?",
                (_details(details), channel_id, message_id),
            )
            self._log([change], [channel], int(self.clock()))
        return change, dataclasses.replace(message, details=details)

    def delete(self, channel_id: int, message_ids: Sequence[int]) -> Change | None:
        """Delete those of the messages that are shown; None when none is."""
        channel = self.channel(channel_id)
        shown = tuple(sorted(self.messages(channel_id, message_ids)))
        if not shown:
            return None
        channel.pts += len(shown)
        channel.shown -= len(shown)
        change = Change(channel_id, channel.pts, "delete", shown)
        with self._transaction():
            self._db.executemany(
                "UPDATE messages SET deleted = 1 WHERE channel_id = ? AND id = ?", [(channel_id, i) for i in shown]
            )
            self._log([change], [channel], int(self.clock()))
        return change

    def _log(self, changes: Sequence[Change], channels: Iterable[Channel], now: int) -> None:
        self._db.executemany(
            "INSERT INTO changes VALUES (?, ?, ?, ?)",
            [(c.channel_id, c.pts, c.kind, json.dumps(c.message_ids)) for c in changes],
        )
        for channel in channels:
            channel.updated_at = now
            self._db.execute(
                "UPDATE channels SET pts = ?, last_message_id = ?, shown = ?, updated_at = ? WHERE id = ?",
                (channel.pts, channel.last_message_id, channel.shown, now, channel.id),
            )

    def messages(self, channel_id: int, message_ids: Sequence[int]) -> dict[int, Message]:
        """Those of the messages that are shown, by id."""
        marks = ",".join("?" * len(message_ids))
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE channel_id = ? AND deleted = 0 AND id IN ({marks})",  # noqa: S608
            (channel_id, *message_ids),
        )
        return {message.id: message for message in map(_message, rows)}

    def newest(self, channel_id: int) -> Message | None:
        """The channel's last shown message."""
        found = self.older(channel_id, 0, 0, 0, 1)
        return found[0] if found else None

    def older(self, channel_id: int, before_id: int, before_second: int, skip: int, limit: int) -> list[Message]:
        """Shown messages, newest first, below an id and posted before a second; 0 sets no bound."""
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE channel_id = ? AND deleted = 0 AND id < ? AND sent_at < ?"  # noqa: S608
            " ORDER BY id DESC LIMIT ? OFFSET ?",
            (channel_id, before_id or 2**31, before_second or 2**40, limit, skip),
        )
        return [_message(row) for row in rows]

    def newer(self, channel_id: int, from_id: int, limit: int) -> list[Message]:
        """Shown messages from an id upwards, oldest first."""
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE channel_id = ? AND deleted = 0 AND id >= ? ORDER BY id LIMIT ?",  # noqa: S608
            (channel_id, from_id, limit),
        )
        return [_message(row) for row in rows]

    def all_messages(self, channel_id: int | None, *, deleted: bool) -> Iterator[Message]:
        """What Telegram shows, or what it has deleted, of one channel or all."""
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE deleted = ? AND (? IS NULL OR channel_id = ?)"  # noqa: S608
            " ORDER BY channel_id, id",
            (deleted, channel_id, channel_id),
        )
        return map(_message, rows)

    def changes(self, channel_id: int, above_pts: int, limit: int) -> list[Change]:
        """The channel's update log above a pts."""
        rows = self._db.execute(
            "SELECT channel_id, pts, kind, message_ids FROM changes WHERE channel_id = ? AND pts > ?"
            " ORDER BY pts LIMIT ?",
            (channel_id, above_pts, limit),
        )
        return [Change(row[0], row[1], row[2], tuple(json.loads(row[3]))) for row in rows]


_DETAILS = msgspec.json.Decoder(Details)


def _details(details: Details) -> str:
    return "{}" if details is PLAIN else msgspec.json.encode(details).decode()


def _message(row: tuple[int, int, float, str, int, int | None, int | None, int, str]) -> Message:
    details = PLAIN if row[8] == "{}" else _DETAILS.decode(row[8])
    return Message(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6], bool(row[7]), details)


def _row(channel: Channel) -> tuple[object, ...]:
    return dataclasses.astuple(channel)
