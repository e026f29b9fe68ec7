"""The lease of a session as a row in the database."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import psycopg

from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, first_line, transaction
from telegram_stack.telegram.lease import LeaseError

LEAVE_SECONDS = 10.0
"""What it takes at most to hand over what has arrived and to disconnect."""

_TAKE = "SELECT holder, seconds_left FROM telegram.take_lease(%s, %s, %s)"
_GIVE_BACK = "UPDATE telegram.leases SET expires_at = clock_timestamp() WHERE name = %s AND holder = %s"


class DatabaseLease:
    """Lasts `seconds` from each renewal, three of which are tried in that time.

    Without its database a gateway leaves Telegram before the lease ends, since another host may have it then; it comes
    back and recovers what it missed when it gets the lease again.
    """

    def __init__(
        self,
        pool: Pool,
        seconds: float,
        *,
        holder: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holder` is this host's name."""
        self._pool = pool
        self._seconds = seconds
        self._holder = holder or socket.gethostname()
        self._clock = clock
        self._name = ""
        self._until = 0.0

    def seconds_left(self) -> float:
        """How long it lasts unless it is renewed; 0 without it."""
        return max(0.0, self._until - self._clock())

    async def take(self, name: str) -> None:
        """Get the lease, or have it already. Raises LeaseError."""
        self._name = name
        try:
            await self._ask()
        except (DatabaseUnavailableError, psycopg.Error) as error:
            raise LeaseError(f"whether another host uses the session cannot be asked: {first_line(error)}") from error

    async def keep(self) -> None:
        """Renew it. Raises LeaseError."""
        problem = ""
        while True:
            left = self._until - LEAVE_SECONDS - self._clock()
            if left <= 0:
                raise LeaseError(f"the lease of the session could not be renewed ({problem}): another host may have it")
            try:
                async with asyncio.timeout(left):
                    await asyncio.sleep(min(left, self._seconds / 3) if not problem else min(left, 1.0))
                    await self._ask()
                problem = ""
            except TimeoutError:
                problem = problem or "no answer"
            except (DatabaseUnavailableError, psycopg.Error) as error:
                problem = first_line(error)

    async def give_back(self) -> None:
        """Let another host have it at once, if that can be said within a moment."""
        self._until = 0.0

        async def work(connection: Connection) -> None:
            await connection.execute(_GIVE_BACK, [self._name, self._holder])

        try:
            async with asyncio.timeout(2):
                await transaction(self._pool, work)
        except (DatabaseUnavailableError, psycopg.Error, TimeoutError):
            pass  # it ends by itself

    async def _ask(self) -> None:
        asked = self._clock()

        async def work(connection: Connection) -> tuple[str, float]:
            row = await (await connection.execute(_TAKE, [self._name, self._holder, self._seconds])).fetchone()
            assert row is not None
            return row[0], row[1]

        holder, left = await transaction(self._pool, work)
        if holder != self._holder:
            raise LeaseError(f"the host {holder} has the lease of the session, for {max(0.0, left):.0f} s more")
        self._until = asked + self._seconds
