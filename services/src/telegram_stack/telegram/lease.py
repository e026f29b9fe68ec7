"""One session, one connection: over several hosts a lease says whose it is.

On one host the lock on the session's file does; a lease is for hosts that stand by for each other.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Protocol

from telethon.sessions import StringSession


class LeaseError(Exception):
    """The session may not be used here now; the message says why."""


class Lease(Protocol):
    """Whoever holds it may use the session that it is for."""

    async def take(self, name: str) -> None:
        """Get it, or have it already. Raises LeaseError."""

    async def keep(self) -> None:
        """Renew it for ever. Raises LeaseError while there is still time to leave before it is another's."""

    async def give_back(self) -> None:
        """Let another host have it at once."""


class NoLease:
    """Nobody else asks for the session."""

    async def take(self, name: str) -> None:
        """It is ours."""

    async def keep(self) -> None:
        """It stays ours."""
        await asyncio.Event().wait()

    async def give_back(self) -> None:
        """Nobody waits for it."""


def lease_name(session: str) -> str:
    """What a session's lease is called: the same on each host, and nobody gets to the key from it."""
    key = StringSession(session).auth_key
    return f"session {sha256(key.key).hexdigest()[:16]}"
