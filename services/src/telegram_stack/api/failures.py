"""What consumers gave up, and asking for it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params
from telegram_stack.api.answers import Success, json, success
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.tokens import Scope, Token
from telegram_stack.database import Connection, Pool, transaction

CONSUMER = Param("consumer", params.words(63), "Only of this consumer")
REASON = Param("reason", params.words(200), "Only where the reason has these characters, without regard to case")
REPLAYED = Param("replayed", params.boolean, "Also those that were asked for again", default=False)
LIMIT = Param("limit", params.integer(1, 1000), "How many at most", default=50)
BEFORE = Param("cursor", params.integer(1, (1 << 63) - 1), "nextCursor of the page before")

_LIST = """
SELECT id, consumer, channel_id, message_id, version, reason, payload, attempts, created_at, replayed_at
FROM telegram.failures
WHERE (%(replayed)s OR replayed_at IS NULL) AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(reason), lower(%(reason)s)) > 0)
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s
"""

# The worker's poll does again what is asked for in its state; a message that is not stored cannot be asked for.
_REPLAY = """
WITH chosen AS MATERIALIZED (
  SELECT id, consumer, channel_id, message_id FROM telegram.failures
  WHERE replayed_at IS NULL AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s)
    AND (%(reason)s::text IS NULL OR strpos(lower(reason), lower(%(reason)s)) > 0)
  ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
SELECT id, telegram.upsert_message_status(
  consumer, channel_id, message_id, 'reprocess_pending', %(note)s::jsonb, 'replay of failure ' || id
) FROM chosen ORDER BY id
"""


class Failure(msgspec.Struct, rename="camel"):
    """One that was given up. Channel and message are 0 where they could not be read from it."""

    id: str
    consumer: str
    channel_id: str
    message_id: str
    version: str
    reason: str
    attempts: int
    payload: Any
    created_at: datetime
    replayed_at: datetime | None


class FailurePage(msgspec.Struct, rename="camel", kw_only=True):
    """The newest first; `next_cursor` asks for older ones."""

    success: bool = True
    data: list[Failure]
    next_cursor: str | None


Words = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class Selection(msgspec.Struct, rename="camel"):
    """Which failures to replay: all that fit, the oldest first."""

    ids: (
        Annotated[
            list[Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]], msgspec.Meta(min_length=1, max_length=1000)
        ]
        | None
    ) = None
    consumer: Words | None = None
    reason: Words | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1000


class Replayed(msgspec.Struct, rename="camel"):
    """`replayed` will be done again by the next poll of their consumer; `not_stored` go on waiting.

    They are of messages that are not in the store: ``telegram-signal-worker replay`` does them from what was kept.
    """

    replayed: list[str]
    not_stored: list[str]


class Failures:
    """``/api/failures``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/failures",
                endpoint=self.page,
                summary="What consumers gave up (the failure queue, and dead letters), the newest first",
                params=(CONSUMER, REASON, REPLAYED, LIMIT, BEFORE),
                answer=FailurePage,
            ),
            Operation(
                method="POST",
                path="/api/failures/replay",
                endpoint=self.replay,
                summary="Have failures processed again",
                scope=Scope.WRITE,
                body=Selection,
                answer=Success[Replayed],
            ),
        )

    async def page(self, request: Request) -> Response:
        """A page of failures."""
        query = Query(request.query_params)
        limit = LIMIT.of(query)
        values = {
            "consumer": CONSUMER.of(query),
            "reason": REASON.of(query),
            "replayed": REPLAYED.of(query),
            "before": BEFORE.of(query),
            "limit": limit + 1,
        }
        query.finish()
        rows = await list_failures(self._pool, values)
        following = rows[limit - 1].id if len(rows) > limit else None
        return json(FailurePage(data=rows[:limit], next_cursor=following))

    async def replay(self, request: Request) -> Response:
        """Ask for them again."""
        wanted = await params.body(request, Selection, may_be_empty=True)
        token: Token = request.state.token
        values = {**msgspec.structs.asdict(wanted), "note": Jsonb({"replay_requested_by": token.name})}

        async def work(connection: Connection) -> Replayed:
            found = await (await connection.execute(_REPLAY, values)).fetchall()
            done = [number for number, stored in found if stored]
            await connection.execute(
                "UPDATE telegram.failures SET replayed_at = clock_timestamp() WHERE id = ANY (%s)", [done]
            )
            return Replayed(list(map(str, done)), [str(number) for number, stored in found if not stored])

        return success(await transaction(self._pool, work))


async def list_failures(pool: Pool, values: dict[str, Any]) -> list[Failure]:
    """Failures by the parameters of `_LIST`."""

    async def work(connection: Connection) -> list[Failure]:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_LIST, values)
            return [_failure(row) for row in await cursor.fetchall()]

    return await transaction(pool, work)


def _failure(row: dict[str, Any]) -> Failure:
    return Failure(**{**row, **{name: str(row[name]) for name in ("id", "channel_id", "message_id", "version")}})
