"""PostgreSQL through PgBouncer: one configuration, one pool, one way to survive a restarted server.

PgBouncer works in transaction mode, so nothing here keeps session state: no prepared statements
(Debian 12's PgBouncer does not know them), no SET outside of a transaction, no LISTEN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import psycopg
from prometheus_client import Histogram
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from telegram_stack.config import read_secret
from telegram_stack.observability.metrics import LATENCY_BUCKETS

T = TypeVar("T")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Connection = psycopg.AsyncConnection[Any]
Pool = AsyncConnectionPool[Connection]

TRANSACTION_SECONDS = Histogram(
    "telegram_database_transaction_seconds",
    "Time of a transaction from a free connection to its commit, the wait in PgBouncer included",
    buckets=LATENCY_BUCKETS,
)


class DatabaseUnavailableError(Exception):
    """Nothing was answered, or the answer was lost; the same again later makes sense."""


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[database]``. `timeout` is in seconds, for a free connection and for the server's answer alike."""

    user: str
    password_file: str = "postgres-password"  # noqa: S105 - a file name
    host: str = "127.0.0.1"
    port: Port = 6434
    name: str = "telegram_gateway"
    pool_max: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


async def open_pool(config: DatabaseConfig, program: str, options: str = "") -> Pool:
    """A pool that opens in the background: a service starts without its database, and says so in its health.

    `options` are settings of each session (``-c name=value``), for a server that is connected to directly.
    Raises ConfigError when the password cannot be read.
    """
    pool: Pool = AsyncConnectionPool(
        kwargs={
            "host": config.host,
            "port": config.port,
            "dbname": config.name,
            "user": config.user,
            "password": read_secret(config.password_file),
            "application_name": program,
            "options": options,
            "connect_timeout": max(2, round(config.timeout)),
            "prepare_threshold": None,
            "autocommit": True,  # transaction() begins itself: psycopg's own BEGIN is a round trip
            # A cut cable is noticed within seconds, not after the kernel's 15 minutes.
            "tcp_user_timeout": int(config.timeout * 1000),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 2,
        },
        min_size=1,
        max_size=config.pool_max,
        timeout=config.timeout,
        # After this long without success the pool reports once and begins again with short delays.
        reconnect_timeout=10.0,
        name=program,
        open=False,
    )
    await pool.open(wait=False)
    return pool


async def transaction(pool: Pool, work: Callable[[Connection], Awaitable[T]], *, one_statement: bool = False) -> T:
    """Run `work` in one transaction; once more, on a fresh connection, when the server had gone away.

    `work` must be idempotent: a commit whose answer was lost is run again. Where it is `one_statement`, that is its own
    transaction, without the two round trips around it.
    Raises DatabaseUnavailableError, or psycopg.Error where the server refused the statement itself.
    """
    try:
        return await _attempt(pool, work, one_statement=one_statement)
    except PoolTimeout as error:
        raise _unavailable(error) from error
    except _GONE:
        try:
            await pool.check()  # throws out what the restart has left behind
            return await _attempt(pool, work, one_statement=one_statement)
        except _GONE as error:
            raise _unavailable(error) from error


_GONE = (psycopg.OperationalError, psycopg.InterfaceError)


async def _attempt(pool: Pool, work: Callable[[Connection], Awaitable[T]], *, one_statement: bool) -> T:
    try:
        # A server that was stopped, not killed, answers nothing at all: twice the time for a connection is its limit.
        async with asyncio.timeout(2 * pool.timeout), pool.connection() as connection:
            started = time.perf_counter()
            result = await (work(connection) if one_statement else _together(connection, work))
    except TimeoutError as error:
        raise DatabaseUnavailableError(f"no answer within {2 * pool.timeout:g} s") from error
    TRANSACTION_SECONDS.observe(time.perf_counter() - started)
    return result


async def _together(connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with connection.pipeline():  # BEGIN, what waits for no answer, and COMMIT take no round trips of their own
        await connection.execute("BEGIN")
        result = await work(connection)
        await connection.execute("COMMIT")
    return result


def _unavailable(error: Exception) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(first_line(error))


def first_line(error: Exception) -> str:
    """What failed, without the server's further lines, which may show values."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


async def ping(pool: Pool) -> float:
    """Seconds until the database has answered; raises DatabaseUnavailableError."""
    started = time.perf_counter()

    async def ask(connection: Connection) -> None:
        await connection.execute("SELECT 1")

    await transaction(pool, ask)
    return time.perf_counter() - started
