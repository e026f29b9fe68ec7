"""The legacy database: reads its shape, writes what has changed, and tells what is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from telegram_stack.config import read_secret
from telegram_stack.database import Connection, DatabaseConfig, Pool, open_pool, transaction
from telegram_stack.legacy import tables
from telegram_stack.legacy.config import LegacyConfig
from telegram_stack.legacy.form import bounds, forms, legacy_form, marked, signal_form
from telegram_stack.legacy.outbox import Change

T = TypeVar("T")

# One feed at a time writes, also where two run: each looks for what is there before it adds.
_ALONE = "SELECT pg_advisory_xact_lock(1718969444)"
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


class RefusedError(Exception):
    """The legacy database takes these changes never, or not as they are; its own words."""


class Fed(NamedTuple):
    """Rows that were changed and added, of messages and of signals."""

    changed: int
    added: int
    signals: int


@dataclass(frozen=True)
class _Shape:
    messages: tables.Messages
    signals: tables.Signals | None
    channels: dict[int, str]
    marks: bool
    """Whether a channel that the table does not know yet goes by its marked id, as most of the others do."""

    def name(self, channel_id: int) -> str:
        return self.channels.get(channel_id) or (str(channel_id) if self.marks else forms(channel_id)[-1])


class OldSide:
    """Raises DatabaseUnavailableError while it is away, RefusedError where it does not take what it is given."""

    def __init__(self, pool: Pool, config: LegacyConfig, consumer: str) -> None:
        self._pool = pool
        self._config = config
        self._consumer = consumer
        self._shape: _Shape | None = None

    async def apply(self, changes: Sequence[Change], last_row_id: int) -> Fed:
        """Write `changes` in one transaction; what is there already is left as it is."""
        shape = await self._known()
        messages, signals = self._given(shape, changes, last_row_id)

        async def write(connection: Connection) -> Fed:
            await connection.execute(_ALONE)
            changed, added = await _one(connection, shape.messages.apply, messages)
            fed = (0, 0)
            if shape.signals and signals["documents"].obj:
                fed = await _one(connection, shape.signals.apply, signals)
            return Fed(changed, added, sum(fed))

        return await self._do(write)

    async def compare(self, changes: Sequence[Change], last_row_id: int) -> list[tuple[Change, set[str]]]:
        """Those of `changes` that are not there as they are here, and what is wrong with each."""
        shape = await self._known()
        messages, signals = self._given(shape, changes, last_row_id)
        kinds = ("missing", "differing", "undeleted", "unprocessed")

        async def look(connection: Connection) -> dict[int, set[str]]:
            wrong: dict[int, set[str]] = {}
            async for place, *found in await connection.execute(shape.messages.compare.encode(), messages):
                wrong[place] = {kind for kind, is_so in zip(kinds, found, strict=True) if is_so}
            if shape.signals:
                async for (place,) in await connection.execute(shape.signals.compare.encode(), signals):
                    wrong.setdefault(place, set()).add("signals")
            return wrong

        return [(changes[place], wrong) for place, wrong in sorted((await self._do(look)).items())]

    async def ping(self) -> None:
        """See whether it answers."""

        async def ask(connection: Connection) -> None:
            await connection.execute("SELECT 1")

        await self._do(ask)

    def _given(
        self, shape: _Shape, changes: Sequence[Change], last_row_id: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [
            {**legacy_form(change.document, shape.name, self._consumer), "place": place}
            for place, change in enumerate(changes)
        ]
        signals = [
            {**signal_form(change.document, shape.name), "place": place}
            for place, change in enumerate(changes)
            if change.document["signal"]
        ]
        earliest, latest = bounds(rows)
        beside = {"last_row_id": last_row_id, "earliest": earliest, "latest": latest}
        return {"documents": Jsonb(rows), **beside}, {"documents": Jsonb(signals)}

    async def _known(self) -> _Shape:
        if self._shape is None:
            self._shape = await self._do(self._read_shape)
        return self._shape

    async def _read_shape(self, connection: Connection) -> _Shape:
        try:
            table = self._config.messages_table
            messages = tables.messages(table, await _columns(connection, table))
            signals = None
            if self._config.signals_table:
                columns = await _columns(connection, self._config.signals_table)
                signals = tables.signals(self._config.signals_table, columns)
        except tables.ShapeError as error:
            raise RefusedError(str(error)) from error
        cursor = await connection.execute(messages.channels.encode())
        names = [name async for (name,) in cursor if name is not None]
        channels = {number: name for name in names if (number := marked(name)) is not None}
        marks = not names or names[-1].startswith("-")
        return _Shape(messages, signals, channels, marks)

    async def _do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await transaction(self._pool, work)
        except psycopg.Error as error:
            raise RefusedError(error.diag.message_primary or type(error).__name__) from error


async def open_old_side(config: LegacyConfig, consumer: str, program: str) -> tuple[Pool, OldSide]:
    """Connects in the background. Raises ConfigError when a secret cannot be read."""
    word = read_secret(config.word_file).replace("\\", "\\\\").replace(" ", "\\ ")
    database = DatabaseConfig(
        user=config.user,
        password_file=config.password_file,
        host=config.host,
        port=config.port,
        name=config.name,
        pool_max=2,
        timeout=config.timeout,
    )
    pool = await open_pool(database, program, options=f"-c TimeZone=UTC -c telegram_stack.feed={word}")
    return pool, OldSide(pool, config, consumer)


async def _columns(connection: Connection, table: str) -> dict[str, str]:
    cursor = await connection.execute(_COLUMNS, [table])
    columns = {name: kind async for name, kind in cursor}
    if not columns:
        raise RefusedError(f"there is no table {table} that the feed may see")
    return columns


async def _one(connection: Connection, statement: str, given: Mapping[str, Any]) -> tuple[int, int]:
    found = await (await connection.execute(statement.encode(), given)).fetchone()
    assert found is not None
    return found[0], found[1]
