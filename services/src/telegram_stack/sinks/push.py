"""The push sinks: each event as a signed POST to an address; one sink, one cursor, one back-off an address."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import msgspec

from telegram_stack.sinks.base import RejectedEventsError, SinkUnavailableError
from telegram_stack.spool import Entry

log = logging.getLogger(__name__)

TIMESTAMP_HEADER = "X-Gateway-Timestamp"
SIGNATURE_HEADER = "X-Gateway-Signature"
EVENT_HEADER = "X-Gateway-Event"
KEY_HEADER = "Idempotency-Key"

_AT_ONCE = 8  # channels; within one, events go one after another
_HOLDING = {401, 403, 404, 408, 425, 429}
"""Client errors that speak of the address, its keys or its load, and not of the event: tried again."""

Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$")]


class PushConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[push]``: each event by HTTP to `addresses`; without any, nothing is pushed.

    An address has no user, password or query: what proves the sender is the signature, whose key is the credential
    `key_file`. `timeout` is that of a request, in seconds. An address that is more than `backlog_limit` events behind
    gives up the oldest, or it would fill the disk of the spool.
    """

    addresses: tuple[Address, ...] = ()
    key_file: str = "push-key"
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    backlog_limit: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000

    def __post_init__(self) -> None:
        names = [sink_name(address) for address in self.addresses]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"push.addresses has the same address twice: {', '.join(sorted(twice))}")


def sink_name(address: str) -> str:
    """How an address is called in cursors, health and metrics: ``push:host/path``."""
    parts = urlsplit(address)
    return f"push:{parts.netloc}{parts.path.rstrip('/')}"


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over ``timestamp.body``, as the header holds it: ``sha256=`` and 64 hex digits."""
    return "sha256=" + hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@dataclass
class Outcome:
    """What became of a batch. `failure` is why something is left."""

    delivered: set[int] = field(default_factory=set)
    refused: dict[str, list[Entry]] = field(default_factory=dict)
    failure: str = ""


class PushSink:
    """Posts each event of a batch, channels side by side, a channel's events in their order."""

    def __init__(
        self,
        address: str,
        key: str,
        *,
        timeout: float,
        backlog_limit: int,
        lag: Callable[[], int],
        given_up: Callable[[str, int], None],
    ) -> None:
        """`lag` tells how many events wait for this address; `given_up` is told its name and how many it never gets."""
        self.name = sink_name(address)
        self._address = address
        self._key = key.encode()
        self._backlog_limit = backlog_limit
        self._lag = lag
        self._given_up = given_up
        # Redirects are not followed: what is signed for one address is not for another.
        self._client = httpx.AsyncClient(
            timeout=timeout, limits=httpx.Limits(max_connections=_AT_ONCE), trust_env=False, follow_redirects=False
        )

    async def write(self, batch: Sequence[Entry]) -> None:
        """Deliver `batch`. What the address refuses is refused reason by reason."""
        if self._lag() > self._backlog_limit:
            log.error(
                "%s is more than %d events behind: it never gets the oldest %d of them",
                self.name,
                self._backlog_limit,
                len(batch),
                extra={"sink": self.name, "first": batch[0].seq, "last": batch[-1].seq},
            )
            self._given_up(self.name, len(batch))
            return
        outcome = await self.deliver(batch)
        for reason, refused in outcome.refused.items():
            settled = outcome.delivered | {entry.seq for entry in refused}
            raise RejectedEventsError(reason, refused, [entry for entry in batch if entry.seq not in settled])
        if remaining := [entry for entry in batch if entry.seq not in outcome.delivered]:
            raise SinkUnavailableError(outcome.failure, remaining)

    async def deliver(self, batch: Sequence[Entry]) -> Outcome:
        """Post each of `batch` once; after a failure nothing is begun any more."""
        outcome = Outcome()
        channels: dict[int, list[Entry]] = {}
        for entry in batch:
            channels.setdefault(entry.event.channel_id, []).append(entry)
        waiting = deque(channels.values())

        async def work() -> None:
            while waiting and not outcome.failure:
                for entry in waiting.popleft():
                    if outcome.failure or not await self._post(entry, outcome):
                        break

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(channels))):
                group.create_task(work())
        return outcome

    async def _post(self, entry: Entry, outcome: Outcome) -> bool:
        """One event; False when the next of its channel has to wait."""
        timestamp = str(int(time.time()))
        event = entry.event
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: signature(self._key, timestamp, entry.body),
            EVENT_HEADER: event.kind,
            KEY_HEADER: f"{event.channel_id}:{event.message_id}:{event.version}",
        }
        try:
            answer = await self._client.post(self._address, content=entry.body, headers=headers)
        except httpx.HTTPError as error:
            outcome.failure = f"{type(error).__name__}: {error}"
            return False
        if answer.is_success:
            outcome.delivered.add(entry.seq)
        elif answer.is_client_error and answer.status_code not in _HOLDING:
            outcome.refused.setdefault(f"HTTP {answer.status_code} {answer.reason_phrase}", []).append(entry)
        else:
            outcome.failure = f"HTTP {answer.status_code} {answer.reason_phrase}"
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
