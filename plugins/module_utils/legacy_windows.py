# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows of the legacy table, window by window, into a temporary table of the stack's database.

While one batch is worked on there, a thread reads the next one: each side's server waits for the other no longer than
it has to.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_source import (
    ROWS_PER_WINDOW,
    Shape,
    ShapeError,
    shape,
)
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.postgresql import (
    Unreachable,
    connect,
    server_words,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from ansible.module_utils.basic import AnsibleModule

    Read = TypeVar("Read")

_TYPES = (
    "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute AS a"
    " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"
)

_KINDS = ("lacking", "differing", "undeleted", "unprocessed")
_COMPARE = """
SELECT channel, coalesce(day::text, 'no day') AS day, rows, lacking, differing, undeleted, unprocessed
FROM telegram.compare_legacy_rows(%s)
"""


class LegacyError(Exception):
    """The legacy rows cannot be had or taken; the message is meant for the operator."""


class Window(NamedTuple):
    """A part of the table that is read at once. `checksum` is that of its rows when the windows were looked up."""

    start: str
    rows: int
    checksum: str


class Changed(NamedTuple):
    """Rows of a window that are to be taken over: how many, as COPY writes them; and checksums of all its rows.

    Checksums stay the text that servers write, with commas: of each pass there are as many as rows.
    """

    checksums: str
    number: int
    rows: bytes


class LegacyTable:
    """The table `source_table` of a module, read over the autocommit connection `source`."""

    def __init__(self, module: AnsibleModule, source: psycopg.Connection[Any]) -> None:
        """Raises LegacyError, ShapeError and psycopg.Error."""
        table = module.params["source_table"]
        self._source = source
        self.name = f"{source.info.dbname}.{table}"
        source.execute("SET timezone = 'UTC'")
        source.execute("SET default_transaction_read_only = on")
        columns = dict(source.execute(_TYPES, [table]).fetchall())
        if not columns:
            raise LegacyError(
                f"There is no table {table} in database {source.info.dbname} that {source.info.user} may see. "
                "Name it in source_table, with its schema."
            )
        self.shape: Shape = shape(table, columns)

    def at_one_moment(self) -> AbstractContextManager[Any]:
        """As long as it lasts, windows and rows are read as they were at its first reading."""
        self._source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return self._source.transaction()

    def windows(self) -> list[Window]:
        """All windows in their order."""
        return [Window(*found) for found in self._source.execute(self.shape.windows.encode())]

    def rows(self, window: Window, only: Collection[str] | None = None) -> bytes:
        """The window's rows, or `only` those with such checksums, as COPY writes them. Raises psycopg.Error."""
        return b"".join(self._copy(self.shape.rows(window.start, only)))

    def changed_rows(self, window: Window, known: Collection[str]) -> Changed:
        """The window's rows whose checksums are not `known`. Raises psycopg.Error."""
        if not known:
            return self._changed(self.shape.rows_with_checksums(window.start))
        with self.at_one_moment():
            (found,) = self._source.execute(self.shape.checksums(window.start).encode()).fetchone() or ("",)
            rows = [row.split(" ", 1) for row in found.split("\n") if row]
            # By their ids: to find them by their checksums the source would compute all of them again.
            ids = {identity for checksum, identity in rows if checksum not in known}
            changed = self._changed(self.shape.rows_by_id(window.start, ids)) if ids else Changed("", 0, b"")
        return changed._replace(checksums=",".join(checksum for checksum, identity in rows))

    def _changed(self, query: str) -> Changed:
        # COPY gives a row at a time, its columns with tabulators between them.
        parts = [row.split(b"\t", 1) for row in self._copy(query)]
        checksums = b",".join(checksum for checksum, row in parts).decode()
        return Changed(checksums, len(parts), b"".join(row for checksum, row in parts))

    def _copy(self, query: str) -> Iterator[bytes]:
        with self._source.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as given:
            for row in given:
                yield bytes(row)


def read_ahead(reads: Iterable[tuple[Window, Callable[[], Read]]]) -> Iterator[tuple[Window, Future[Read]]]:
    """Each window with what its function gives, in their order; a thread reads the next windows meanwhile.

    As many as have rows for a batch are held in memory.
    """
    ahead: deque[tuple[Window, Future[Read]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            for window, read in reads:
                ahead.append((window, thread.submit(read)))
                while sum(waiting.rows for waiting, future in ahead) >= ROWS_PER_WINDOW:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for _window, future in ahead:
                future.cancel()


def bring(rows: bytes, target: psycopg.Connection[Any]) -> None:
    """Put rows as COPY writes them into `legacy_rows` of `target`, in a transaction. Raises psycopg.Error."""
    with target.cursor().copy(b"COPY legacy_rows FROM STDIN") as taken:
        taken.write(rows)


def begun_within(seconds: float, windows: Iterable[Window]) -> Iterator[Window]:
    """Those of `windows` that are begun before `seconds` are over, at least one."""
    end = time.monotonic() + seconds
    for window in windows:
        yield window
        if time.monotonic() >= end:
            return


def prepare(target: psycopg.Connection[Any]) -> None:
    """Make the temporary table `legacy_rows`, which is empty at the begin of each transaction."""
    target.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row ON COMMIT DELETE ROWS")


def copied(table: LegacyTable, target: psycopg.Connection[Any]) -> dict[str, str]:
    """Checksums of the windows that were copied, by the name of the window. Raises psycopg.Error."""
    query = "SELECT window_start, checksum FROM telegram.copied_windows WHERE source = %s"
    return dict(target.execute(query, [table.name]).fetchall())


def copied_rows(table: LegacyTable, window: Window, target: psycopg.Connection[Any]) -> set[str]:
    """Checksums of the rows of a window as they were copied. Raises psycopg.Error."""
    query = (
        "SELECT array_to_string(row_checksums, ',') FROM telegram.copied_windows"
        " WHERE source = %s AND window_start = %s"
    )
    (found,) = target.execute(query, [table.name, window.start]).fetchone() or ("",)
    return set(found.split(",")) - {""}


def differing(table: LegacyTable, target: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Channels and days in which rows of `legacy_read` differ from what is here. Raises psycopg.Error."""
    cursor = target.execute(_COMPARE, [table.name])
    names = [column.name for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def verdict(differences: list[dict[str, Any]]) -> str:
    """What is wrong, in a sentence."""
    sums = {kind: sum(found[kind] for found in differences) for kind in _KINDS}
    said = ", ".join(f"{count} {kind}" for kind, count in sums.items() if count)
    first = differences[0]
    return (
        f"The legacy system has rows that are not here as they are there: {said}, in {len(differences)} pairs of "
        f"channel and day, the first {first['channel']} on {first['day']}. The next copy takes them again; "
        "what differs behind it, too, is a defect."
    )


def with_legacy_table(
    module: AnsibleModule,
    what: str,
    act: Callable[[AnsibleModule, LegacyTable, psycopg.Connection[Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Connect to both sides and do `act` with the table and the stack's database; see `read_legacy`."""

    def with_target(module: AnsibleModule, table: LegacyTable, _source: psycopg.Connection[Any]) -> dict[str, Any]:
        with connect(module) as target:
            target.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(module.params["owner"])))
            return act(module, table, target)

    return read_legacy(module, what, with_target)


def read_legacy(
    module: AnsibleModule,
    what: str,
    act: Callable[[AnsibleModule, LegacyTable, psycopg.Connection[Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Connect to the legacy side and do `act` with the table and that connection; what goes wrong ends the module.

    `what` names it in messages.
    """
    try:
        with connect(module, prefix="source", client_encoding="UTF8") as source:
            try:
                return act(module, LegacyTable(module, source), source)
            except psycopg.Error as error:
                said = server_words(error).rstrip(".")
                raise LegacyError(f"{what} could not go on: {said} ({error.sqlstate}).") from error
    except (LegacyError, ShapeError, Unreachable) as error:
        module.fail_json(msg=str(error))
        raise
