"""Erasing a message or a channel for good: the store, the cache, and what else there is to know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from psycopg.rows import dict_row
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack import cache_keys
from telegram_stack.api import params
from telegram_stack.api.answers import Success, success
from telegram_stack.api.errors import ApiError, FieldError, invalid
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.registry import given_channel
from telegram_stack.api.shapes import number_text
from telegram_stack.api.tokens import Scope, Token
from telegram_stack.cache import CacheClient, CacheUnavailableError
from telegram_stack.database import Connection, Pool, transaction

LIMIT = Param("limit", params.integer(1, 1000), "How many at most", default=100)
_COLUMNS = "id, channel_id, message_id, requested_by, reason, requested_at, finished_at, erased_rows"

_ELSEWHERE = (
    ("queue", "what waits in a consumer's queue is processed yet; maintenance erases its traces for a week"),
    ("spool", "the gateway keeps its last events (spool.retain) on its disk until newer ones push them out"),
    ("backups", "each set keeps it until its own retention ends; a restore of one brings it back: erase it again then"),
    ("exports", "what was exported, pushed or streamed is with its receivers"),
)


class Order(msgspec.Struct, rename="camel"):
    """What to erase: one message of a channel, or without a message the whole channel up to now."""

    channel_id: int | str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
    message_id: int | str | None = None
    whole_channel: bool = False


class Erasure(msgspec.Struct, rename="camel"):
    """The audit record. `finished_at` None: some is left, and maintenance goes on with it."""

    id: str
    channel_id: str
    message_id: str | None
    requested_by: str
    reason: str | None
    requested_at: datetime
    finished_at: datetime | None
    erased_rows: int


class Place(msgspec.Struct):
    """Where a message may be, and what became of it there."""

    place: str
    state: Literal["erased", "unavailable", "remains"]
    detail: str


class Outcome(msgspec.Struct):
    """The record, and every place."""

    erasure: Erasure
    places: list[Place]


class Erasures:
    """``/api/erasures``."""

    def __init__(self, pool: Pool, cache: CacheClient | None, gateway: GatewayClient, consumer: str) -> None:
        self._pool = pool
        self._gateway = gateway
        self._cache = cache
        self._consumer = consumer

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="POST",
                path="/api/erasures",
                endpoint=self.erase,
                summary="Erase a message, or a whole channel, for good",
                scope=Scope.ADMIN,
                body=Order,
                answer=Success[Outcome],
                status=201,
            ),
            Operation(
                method="GET",
                path="/api/erasures",
                endpoint=self.records,
                summary="What was erased, by whom and when; the newest first",
                scope=Scope.ADMIN,
                params=(LIMIT,),
                answer=Success[list[Erasure]],
            ),
        )

    async def erase(self, request: Request) -> Response:
        """Record it, so that nothing comes back, then remove what is there."""
        body = await params.body(request, Order)
        channel = given_channel(body.channel_id)
        message = _message(body)
        token: Token = request.state.token

        async def begin(connection: Connection) -> int:
            values = [channel, message, token.name, body.reason]
            cursor = await connection.execute("SELECT telegram.begin_erasure(%s, %s, %s, %s)", values)
            row = await cursor.fetchone()
            return int(row[0]) if row else 0

        number = await transaction(self._pool, begin)

        async def step(connection: Connection) -> bool:
            cursor = await connection.execute("SELECT telegram.continue_erasure(%s)", [number])
            row = await cursor.fetchone()
            return bool(row and row[0])

        cached = await self._forget(channel, message)
        while not await transaction(self._pool, step):
            pass
        [record] = await transaction(self._pool, lambda connection: _records(connection, 1, number))
        photos = await self._forget_photos(channel, message)
        places = [Place("store", "erased", f"{record.erased_rows} rows"), cached, photos]
        places += [Place(name, "remains", detail) for name, detail in _ELSEWHERE]
        return success(Outcome(record, places), 201)

    async def records(self, request: Request) -> Response:
        """The audit records."""
        query = Query(request.query_params)
        limit = LIMIT.of(query)
        query.finish()
        return success(await transaction(self._pool, lambda connection: _records(connection, limit)))

    async def _forget_photos(self, channel: int, message: int | None) -> Place:
        """Take them out of the gateways' caches. The API gives no photo of an erased message any more."""
        try:
            for gateway in (self._gateway, *self._gateway.accounts.values()):
                await gateway.ask("DELETE", f"/photo/{channel}" + ("" if message is None else f"/{message}"))
        except ApiError as error:
            return Place("photos", "unavailable", f"{error.message}; ask for the same erasure again when it is there")
        return Place("photos", "erased", "what the gateway kept of them")

    async def _forget(self, channel: int, message: int | None) -> Place:
        """Take it out of the cache, where everything expires within two hours anyway."""
        if self._cache is None:
            return Place("cache", "unavailable", "the API has no cache")
        sets = [cache_keys.recent(channel), cache_keys.pending(self._consumer, channel)]

        async def work(redis: Redis) -> int:
            members: list[Any] = [message] if message is not None else await redis.zrange(sets[0], 0, -1)
            numbers = [int(member) for member in members]
            async with redis.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.delete(cache_keys.message(channel, number))
                for name in sets:
                    if message is None:
                        pipeline.delete(name)
                    else:
                        pipeline.zrem(name, message)
                return sum(await pipeline.execute())

        try:
            removed = await self._cache.call(work)
        except CacheUnavailableError as error:
            return Place("cache", "unavailable", f"{error}; what it has of it expires within the hour")
        return Place("cache", "erased", f"{removed} entries; any other expires within the hour")


def _message(body: Order) -> int | None:
    """The message's number. Raises ApiError 422, also where it is not clear what is meant."""
    if (body.message_id is None) is not body.whole_channel:
        raise invalid([FieldError("messageId", "is needed, or wholeChannel true instead of it")])
    try:
        return None if body.message_id is None else params.message_id(str(body.message_id))
    except ValueError as error:
        raise invalid([FieldError("messageId", str(error))]) from error


async def _records(connection: Connection, limit: int, number: int | None = None) -> list[Erasure]:
    query = f"""
        SELECT {_COLUMNS} FROM telegram.erasures WHERE %(number)s::bigint IS NULL OR id = %(number)s
        ORDER BY id DESC LIMIT %(limit)s"""  # noqa: S608 - the constant above
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, {"number": number, "limit": limit})
        return [_record(row) for row in await cursor.fetchall()]


def _record(row: dict[str, Any]) -> Erasure:
    names = {"id": str(row["id"]), "channel_id": str(row["channel_id"]), "message_id": number_text(row["message_id"])}
    return Erasure(**{**row, **names})
