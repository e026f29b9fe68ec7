"""What was sent against what arrived: in the store, in the queue, as an effect."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.stack import Stack

from telegram_stack.topology import ALL_CHANNELS, EXCHANGE

_AUDIT_QUEUE = "telegram.fault-suite"
_MARK = 10**12

# Every write of an effect or of a consumer's mark, also a second one of the same version: the tables would not show it.
_AUDIT = """
CREATE SCHEMA fault_suite;
CREATE TABLE fault_suite.writes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, target text NOT NULL, channel_id bigint NOT NULL,
  message_id bigint NOT NULL, version bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION fault_suite.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO fault_suite.writes (target, channel_id, message_id, version)
  VALUES (TG_TABLE_NAME, NEW.channel_id, NEW.message_id, NEW.version);
  RETURN NULL;
END $$;
CREATE TRIGGER fault_suite AFTER INSERT OR UPDATE ON telegram.signals
FOR EACH ROW EXECUTE FUNCTION fault_suite.note();
CREATE TRIGGER fault_suite AFTER INSERT OR UPDATE ON telegram.processing
FOR EACH ROW EXECUTE FUNCTION fault_suite.note();
"""

Key = tuple[int, int]


@dataclass(frozen=True)
class Sent:
    """A message as Telegram has it: `sent_at` in seconds since the epoch."""

    sent_at: float
    text: str
    edited: bool
    deleted: bool


@dataclass(frozen=True)
class Kept:
    """What the tables have of a message.

    `stored` is its version, text, whether it is edited, whether it is deleted; `mark` the consumer's version and
    status; `signal` the version of its effect.
    """

    stored: tuple[int, str, bool, bool] | None
    mark: tuple[int, str] | None
    signal: int | None


@dataclass
class Account:
    """One comparison. Keys are (channel, message); latencies are (sent at, seconds until the first effect)."""

    sent: dict[Key, Sent] = field(default_factory=dict)
    not_stored: set[Key] = field(default_factory=set)
    not_published: set[Key] = field(default_factory=set)
    not_effected: set[Key] = field(default_factory=set)
    durable: int = 0
    published: int = 0
    published_again: int = 0
    effects: int = 0
    duplicate_effects: int = 0
    reordered: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)

    @property
    def lost(self) -> set[Key]:
        """Whose final state is missing, or older than Telegram's, in store, queue or effect."""
        return self.not_stored | self.not_published | self.not_effected


class Ledger:
    """Keeps books from now on: `prepare` once a stack, `begin` before each injection, `account` after it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._since = 0.0
        self._first_write = 0
        self._published: Counter[tuple[int, int, int]] = Counter()
        self._deletions: set[Key] = set()

    def prepare(self) -> None:
        """Add the triggers and the queue that see everything."""
        with self._stack.database.connect() as connection:
            connection.execute(_AUDIT)
        channel = self._stack.broker.channel()
        channel.queue_declare(_AUDIT_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(_AUDIT_QUEUE, EXCHANGE, ALL_CHANNELS)
        channel.connection.close()

    def begin(self, now: float) -> None:
        """What is sent from `now` on belongs to the next injection."""
        self._since = now
        self._published.clear()
        self._deletions.clear()
        with self._stack.database.connect() as connection:
            row = connection.execute("SELECT coalesce(max(id), 0) FROM fault_suite.writes").fetchone()
            assert row is not None
            self._first_write = int(row[0])

    def account(self) -> Account:
        """Compare. What is missing may still be on its way: the caller asks again."""
        self._drain()
        account = Account(sent=self._sent())
        with self._stack.database.connect() as connection:
            stored, marks, signals = self._tables(connection)
            writes = connection.execute(
                "SELECT target, channel_id, message_id, version, extract(epoch FROM at)::float8"
                " FROM fault_suite.writes WHERE id > %s ORDER BY id", [self._first_write],
            ).fetchall()  # fmt: skip
        for key, sent in account.sent.items():
            self._judge(account, key, sent, Kept(stored.get(key), marks.get(key), signals.get(key)))
        account.published = len(self._published)
        account.published_again = self._published.total() - len(self._published)
        count_writes(account, writes)
        return account

    def _judge(self, account: Account, key: Key, sent: Sent, kept: Kept) -> None:
        if sent.deleted:
            # What was deleted while nobody listened is gone for everybody; what is kept must be marked.
            if kept.stored is not None and not kept.stored[3]:
                account.not_stored.add(key)
            if key not in self._deletions:
                account.not_published.add(key)
            if kept.mark is not None and kept.mark[1] != "deleted":
                account.not_effected.add(key)
        else:
            version, *state = kept.stored or (0,)
            if state != [sent.text, sent.edited, False]:
                account.not_stored.add(key)
            if (*key, version) not in self._published:
                account.not_published.add(key)
            mark = kept.mark or (0, "")
            if mark[0] != version or (mark[1] == "published" and kept.signal != version):
                account.not_effected.add(key)
        account.durable += key not in account.not_stored

    def _sent(self) -> dict[Key, Sent]:
        uri = f"file:{self._stack.telegram}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=10)
        try:
            rows = connection.execute(
                "SELECT channel_id, id, sent_at, text, edit_date IS NOT NULL, deleted FROM messages WHERE sent_at >= ?",
                [self._since],
            ).fetchall()
        finally:
            connection.close()
        return {(-(_MARK + row[0]), row[1]): Sent(row[2], row[3], bool(row[4]), bool(row[5])) for row in rows}

    def _tables(self, connection: Any) -> tuple[dict[Key, Any], dict[Key, Any], dict[Key, int]]:
        since = [self._since - 2]  # Telegram's dates are whole seconds
        stored = connection.execute(
            "SELECT channel_id, message_id, version, text, edit_date IS NOT NULL, deleted_at IS NOT NULL"
            " FROM telegram.messages WHERE message_date >= to_timestamp(%s)", since,
        ).fetchall()  # fmt: skip
        marks = connection.execute(
            "SELECT channel_id, message_id, version, status FROM telegram.processing"
            " WHERE created_at >= to_timestamp(%s)", since,
        ).fetchall()  # fmt: skip
        signals = connection.execute(
            "SELECT channel_id, message_id, version FROM telegram.signals WHERE message_date >= to_timestamp(%s)", since
        ).fetchall()
        return (
            {(row[0], row[1]): tuple(row[2:]) for row in stored},
            {(row[0], row[1]): tuple(row[2:]) for row in marks},
            {(row[0], row[1]): row[2] for row in signals},
        )

    def _drain(self) -> None:
        channel = self._stack.broker.channel()
        channel.basic_qos(prefetch_count=1000)
        try:
            for method, properties, _ in channel.consume(_AUDIT_QUEUE, inactivity_timeout=0.3):
                if method is None:
                    return
                first, second, third = map(int, properties.message_id.split(":"))
                self._published[first, second, third] += 1
                if properties.type == "delete":
                    self._deletions.add((first, second))
                channel.basic_ack(method.delivery_tag)
        finally:
            channel.connection.close()


def count_writes(account: Account, writes: Iterable[tuple[str, int, int, int, float]]) -> None:
    """Effects by key and version, those written twice, those behind a later message of their channel, and latencies."""
    effects: Counter[tuple[str, int, int, int]] = Counter()
    first: dict[Key, float] = {}
    newest: dict[int, int] = {}
    for target, channel, message, version, at in writes:
        effects[target, channel, message, version] += 1
        key = (channel, message)
        if target != "processing" or key in first or key not in account.sent:
            continue
        first[key] = at
        account.reordered += message < newest.get(channel, 0)
        newest[channel] = max(message, newest.get(channel, 0))
    account.effects = sum(1 for target, *_ in effects if target == "processing")
    account.duplicate_effects = sum(count - 1 for count in effects.values())
    account.latencies = sorted((account.sent[key].sent_at, at - account.sent[key].sent_at) for key, at in first.items())
