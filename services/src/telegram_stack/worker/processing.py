"""From deliveries to committed effects: first decided without any I/O, then written in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
from prometheus_client import Counter
from psycopg.types.json import Jsonb

from telegram_stack import events
from telegram_stack.cache import CacheUnavailableError
from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, transaction
from telegram_stack.topology import RETRY_DELAYS_MS

if TYPE_CHECKING:
    from telegram_stack.events import Event
    from telegram_stack.worker.broker import Delivery
    from telegram_stack.worker.cache import ConsumerCache
    from telegram_stack.worker.filter import Filter
    from telegram_stack.worker.handlers import Effect, Handler

DEDUP = Counter(
    "telegram_worker_dedup_total", "Versions that the cache was asked about: a hit spares the database", ["result"]
)

_DELAYS = tuple(RETRY_DELAYS_MS)

# A version is written once; but one that waits for a retry, failed or was asked for again is not finished.
_MARK = """
INSERT INTO telegram.processing AS p (
  consumer, channel_id, message_id, version, status, attempts, error, metadata, created_at, updated_at
)
SELECT %s, m.*, clock_timestamp(), clock_timestamp() FROM unnest(
  %b::bigint[], %b::bigint[], %b::bigint[], %b::text[], %b::integer[], %b::text[], %b::jsonb[]
) AS m
ON CONFLICT (consumer, channel_id, message_id) DO UPDATE SET
  version = excluded.version, status = excluded.status, attempts = excluded.attempts, error = excluded.error,
  metadata = CASE excluded.status WHEN 'deleted' THEN p.metadata || excluded.metadata ELSE excluded.metadata END,
  updated_at = excluded.updated_at
WHERE excluded.version > p.version OR (
  excluded.version = p.version AND (
    p.status IN ('received', 'reprocess_pending')
    OR p.status = 'retrying' AND excluded.attempts >= p.attempts
    OR p.status = 'failed' AND excluded.attempts > p.attempts
  )
)
RETURNING channel_id, message_id
"""

_RECORD_FAILURE = """
INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

_FINISHED = frozenset({"published", "ignored", "deleted"})
_ONLY_MARKED = frozenset({"ignored", "deleted", "retrying"})  # nothing else is written for them
_REFUSED_DATA = (psycopg.DataError, psycopg.IntegrityError)


@dataclass(frozen=True)
class Mark:
    """One row of ``telegram.processing``, and what stands behind it."""

    event: Event
    delivery: Delivery
    status: str
    metadata: dict[str, Any]
    effect: Effect | None = None
    error: str | None = None


@dataclass(frozen=True)
class Poison:
    """A delivery that will never be an event, or that the database refuses."""

    delivery: Delivery
    reason: str


@dataclass
class Decision:
    """What becomes of a batch. `marks` are sorted by key, one a key: the newest state in the batch.

    `events` are those of the marks, and stay when a mark turns out to be written already.
    """

    marks: list[Mark] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What was committed: the marks that were new to the database, and every poison. `events` were settled by it."""

    marks: list[Mark]
    poison: list[Poison]
    events: list[Event]

    @property
    def retries(self) -> list[tuple[Delivery, str]]:
        """Deliveries that come again, with the delay that names their wait queue."""
        return [(mark.delivery, _DELAYS[mark.delivery.attempt - 1]) for mark in self.marks if mark.status == "retrying"]

    @property
    def given_up(self) -> list[Delivery]:
        """Deliveries for the dead-letter exchange; their failures are recorded."""
        failed = [mark.delivery for mark in self.marks if mark.status == "failed"]
        return [poison.delivery for poison in self.poison] + failed


def decide(deliveries: Iterable[Delivery], handler: Handler, wanted: Filter, consumer: str, now: datetime) -> Decision:
    """Read, filter and handle `deliveries`. Never raises on what they contain."""
    decision = Decision()
    newest: dict[tuple[int, int], tuple[Event, Delivery]] = {}
    for delivery in deliveries:
        try:
            event = delivery.event or events.decode(delivery.body)
        except (msgspec.DecodeError, events.UnknownSchemaError, UnicodeDecodeError, RecursionError) as error:
            decision.poison.append(Poison(delivery, f"no event: {error}"))
            continue
        known = newest.get(event.key)
        if known is None or (event.version, delivery.attempt) >= (known[0].version, known[1].attempt):
            newest[event.key] = (event, delivery)
    stamp = {"processed_by": consumer, "processed_at": now.isoformat()}
    decision.marks = [_mark(*newest[key], handler, wanted, stamp) for key in sorted(newest)]
    decision.events = [mark.event for mark in decision.marks]
    return decision


def _mark(event: Event, delivery: Delivery, handler: Handler, wanted: Filter, stamp: dict[str, Any]) -> Mark:
    if event.kind == "delete":
        return Mark(event, delivery, "deleted", stamp)
    refusal = wanted.refusal(event)
    if refusal:
        return Mark(event, delivery, "ignored", {**stamp, "reason": refusal})
    try:
        effect = handler.handle(event)
    except Exception as error:
        status = "retrying" if delivery.attempt <= len(_DELAYS) else "failed"
        reason = f"handler failed: {type(error).__name__}: {error}"
        return Mark(event, delivery, status, {"reason": f"handler failed: {type(error).__name__}"}, None, reason)
    metadata = {**effect.metadata, **stamp}
    if effect.reason:
        metadata["reason"] = effect.reason
    return Mark(event, delivery, effect.status, metadata, effect)


class Processor:
    """Decides and writes batches for one consumer."""

    def __init__(
        self, pool: Pool, handler: Handler, wanted: Filter, consumer: str, cache: ConsumerCache | None = None
    ) -> None:
        self._pool = pool
        self._handler = handler
        self._wanted = wanted
        self._consumer = consumer
        self._cache = cache

    async def process(self, deliveries: Sequence[Delivery], *, ask_cache: bool = True) -> list[Outcome]:
        """Commit the effects and marks of `deliveries`; a batch is one outcome unless the database refused its data.

        Idempotent: what was written before is not written again; the cache, where it is asked, only spares the database
        the question. Raises DatabaseUnavailableError; nothing or all of an outcome is written then.
        """
        decision = self.decide(deliveries)
        if ask_cache:
            await self._leave_out_processed(decision)
        try:
            return [await self._write(decision)]
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            reason = f"cannot be stored: {_words(error)}"
        if len(deliveries) > 1:  # one of them is bad; each by itself shows which
            return [outcome for delivery in deliveries for outcome in await self.process([delivery], ask_cache=False)]
        failed = [replace(mark, status="failed", effect=None, error=reason) for mark in decision.marks]
        try:
            return [await self._write(Decision(marks=failed, events=decision.events))]
        except _REFUSED_DATA:  # not even its key
            return [await self._write(Decision(poison=[Poison(deliveries[0], reason)]))]

    def decide(self, deliveries: Iterable[Delivery]) -> Decision:
        """What becomes of `deliveries`, without any I/O."""
        return decide(deliveries, self._handler, self._wanted, self._consumer, events.utc_now())

    async def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Tell the cache what was committed. It may not know: then the database says so the next time."""
        if self._cache is None:
            return
        settled = [event.key for outcome in outcomes for event in outcome.events]
        finished = [mark.event for outcome in outcomes for mark in outcome.marks if mark.status in _FINISHED]
        if settled:
            with contextlib.suppress(CacheUnavailableError):
                await self._cache.settle(settled, finished)

    async def _leave_out_processed(self, decision: Decision) -> None:
        if self._cache is None or not decision.marks:
            return
        try:
            known = await self._cache.processed(decision.events)
        except CacheUnavailableError:
            DEDUP.labels("unavailable").inc(len(decision.marks))
            return
        DEDUP.labels("hit").inc(len(known))
        DEDUP.labels("miss").inc(len(decision.marks) - len(known))
        decision.marks = [mark for mark in decision.marks if mark.event.key not in known]

    async def _write(self, decision: Decision) -> Outcome:
        if not decision.marks and not decision.poison:
            return Outcome([], [], decision.events)
        alone = not decision.poison and all(mark.status in _ONLY_MARKED for mark in decision.marks)
        try:
            return await transaction(
                self._pool, lambda connection: self.commit(connection, decision), one_statement=alone
            )
        except _REFUSED_DATA:
            raise
        except psycopg.Error as error:
            # A missing table or right, a read-only server: for an operator to mend, and the messages wait meanwhile.
            raise DatabaseUnavailableError(_words(error)) from error

    async def commit(self, connection: Connection, decision: Decision) -> Outcome:
        """Write `decision` in the transaction of `connection`. Raises psycopg.Error and what the handler raises."""
        marks: list[Mark] = []
        if decision.marks:
            cursor = await connection.execute(_MARK, [self._consumer, *_columns(decision.marks)])
            written = set(await cursor.fetchall())
            marks = [mark for mark in decision.marks if mark.event.key in written]
        failures = [self._failure(mark) for mark in marks if mark.status == "failed"]
        failures += [self._poison(poison) for poison in decision.poison]
        for failure in failures:
            await connection.execute(_RECORD_FAILURE, failure)
        effects = [(mark.event, mark.effect) for mark in marks if mark.effect and mark.status == "published"]
        if effects:
            await self._handler.store(connection, effects)
        return Outcome(marks, decision.poison, decision.events)

    def _failure(self, mark: Mark) -> tuple[Any, ...]:
        body, attempt = mark.delivery.body, mark.delivery.attempt
        # jsonb knows no NUL
        payload = _encoded(body) if b"\\u0000" in body else body.decode()
        return (self._consumer, *mark.event.key, mark.event.version, _clean(mark.error), payload, attempt)

    def _poison(self, poison: Poison) -> tuple[Any, ...]:
        delivery = poison.delivery
        channel = delivery.headers.get("x-channel-id")
        channel_id = channel if isinstance(channel, int) else 0  # 0: not known, as are message and version
        return (self._consumer, channel_id, 0, 0, _clean(poison.reason), _encoded(delivery.body), delivery.attempt)


def _columns(marks: Sequence[Mark]) -> list[list[Any]]:
    rows = [
        (
            *mark.event.key,
            mark.event.version,
            mark.status,
            mark.delivery.attempt,
            _clean(mark.error),
            Jsonb(mark.metadata),
        )
        for mark in marks
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _encoded(body: bytes) -> str:
    """JSON of any bytes, so that a replay gets them back."""
    return msgspec.json.encode({"base64": body}).decode()


def _clean(text: str | None) -> str | None:
    """`text` as PostgreSQL can hold it."""
    return None if text is None else text.encode(errors="replace").decode().replace("\0", "")


def _words(error: Exception) -> str:
    """The server's own words for its errors, type and words for others."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return f"{type(error).__name__}: {error}".partition("\n")[0]
