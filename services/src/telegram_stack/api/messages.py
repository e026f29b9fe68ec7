"""Messages, page by page and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params, queries
from telegram_stack.api.answers import Success, encode, json, tagged
from telegram_stack.api.cached import Answers
from telegram_stack.api.cursor import behind, cursor
from telegram_stack.api.errors import not_found
from telegram_stack.api.message_ids import find_key
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.queries import MessageFilter
from telegram_stack.api.shapes import Message, MessagePage, Pagination, Unprocessed
from telegram_stack.database import Connection, Pool, transaction

ROW = Param("id", params.row_name, "The message's row id, ours or the one of a legacy table", place="path")
CHANNELS = Param("channelId", params.channel_id, "Only these channels", many=True)
NUMBERS = Param("messageId", params.message_id, "Only these of Telegram's message ids", many=True)
STATUSES = Param("status", params.status, "Only messages in these states", many=True)
SOURCES = Param("source", params.words(100), "Only from these sources", many=True)
SINCE = Param("from", params.moment, "Received at this time or later")
UNTIL = Param("to", params.moment, "Received at this time or earlier")
SEARCH = Param("search", params.words(200), "The text has these characters, without regard to case")
DELETED = Param("includeDeleted", params.boolean, "Deleted messages as well", default=False)
# The legacy API took whatever is not asc for the newest first, and its clients may rely on that.
SORT = Param(
    "sort",
    params.Reader(str.lower, {"type": "string", "enum": ["asc", "desc"]}),
    "asc: the oldest first",
    default="desc",
)
LIMIT = Param("limit", params.integer(1, params.MAX_LIMIT), "How many at most", default=50)
OFFSET = Param("offset", params.integer(0, params.MAX_OFFSET), "How many to pass over", default=0)
CURSOR = Param("cursor", cursor, "nextCursor of the page before; faster than offset, and steady while messages come")
FILTERS: tuple[Param[object], ...] = (CHANNELS, NUMBERS, STATUSES, SOURCES, SINCE, UNTIL, SEARCH, DELETED)  # type: ignore[assignment]

CHANNEL = Param("channel", params.channel_id, "The channel", default=0, required=True)
CONSUMER = Param("excludeProcessedBy", params.words(63), "The consumer that has not processed them")
MANY = Param("limit", params.integer(1, params.MAX_LIMIT), "How many at most", default=1000)


class Messages:
    """The endpoints of ``/api/messages``. `consumer` is the one whose processing state is shown."""

    def __init__(self, pool: Pool, answers: Answers, consumer: str) -> None:
        self._pool = pool
        self._answers = answers
        self._consumer = consumer

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/messages",
                endpoint=self.page,
                summary="A page of messages, the newest first",
                params=(*FILTERS, SORT, LIMIT, OFFSET, CURSOR),
                answer=MessagePage,
                tagged=True,
            ),
            Operation(
                method="GET",
                path="/api/messages/unprocessed",
                endpoint=self.unprocessed,
                summary="The oldest messages of a channel that a consumer has not processed",
                params=(CHANNEL, STATUSES, CONSUMER, MANY),
                answer=Unprocessed,
            ),
            Operation(
                method="GET",
                path="/api/messages/{id}",
                endpoint=self.get,
                summary="One message",
                params=(ROW,),
                answer=Success[Message],
                tagged=True,
                errors=(404,),
            ),
        )

    async def page(self, request: Request) -> Response:
        """A page of messages, newest first."""
        query = Query(request.query_params)
        wanted = read_filter(query)
        ascending = SORT.of(query) == "asc"
        limit, offset, place = LIMIT.of(query), OFFSET.of(query), CURSOR.of(query)
        query.refuse(CURSOR.name, "goes with the filters of its page, without offset", when=bool(place and offset))
        query.finish()

        async def numbered(connection: Connection) -> MessagePage:
            rows, total = await queries.list_messages(
                connection, self._consumer, wanted, ascending=ascending, limit=limit, offset=offset
            )
            more = offset + len(rows) < total
            return page_of(rows, Pagination(total=total, limit=limit, offset=offset, has_more=more))

        async def following(connection: Connection) -> MessagePage:
            rows = await queries.list_behind(
                connection, self._consumer, wanted, place, ascending=ascending, limit=limit + 1
            )
            return page_of(rows[:limit], Pagination(limit=limit, has_more=len(rows) > limit))

        name = ("messages", self._consumer, asdict(wanted), ascending, limit, offset, place)
        make = following if place else numbered
        return tagged(request, await self._answers.get(name, wanted.channels, make))

    async def get(self, request: Request) -> Response:
        """One message by its row id."""
        name = ROW.in_path(request)

        async def work(connection: Connection) -> Message | None:
            key = await find_key(connection, name)
            return await queries.get_message(connection, self._consumer, key) if key else None

        message = await transaction(self._pool, work)
        if message is None:
            raise not_found(f"Message {name}")
        return tagged(request, encode(Success(data=message)))

    async def unprocessed(self, request: Request) -> Response:
        """The oldest messages of a channel that a consumer has not processed."""
        query = Query(request.query_params)
        channel = CHANNEL.of(query)
        statuses = STATUSES.all(query) or ["received"]
        consumer = CONSUMER.of(query) or self._consumer
        limit = MANY.of(query)
        query.finish()
        rows = await transaction(
            self._pool, lambda connection: queries.unprocessed(connection, consumer, channel, statuses, limit)
        )
        filters = {"channel": str(channel), "status": statuses, "excludeProcessedBy": consumer, "limit": limit}
        return json(Unprocessed(data=rows, count=len(rows), filters=filters))


def read_filter(query: Query) -> MessageFilter:
    """Which messages a query asks for."""
    return MessageFilter(
        channels=CHANNELS.all(query),
        messages=NUMBERS.all(query),
        statuses=STATUSES.all(query),
        sources=SOURCES.all(query),
        since=SINCE.of(query),
        until=UNTIL.of(query),
        search=SEARCH.of(query),
        include_deleted=DELETED.of(query),
    )


def page_of(rows: Sequence[Message], pagination: Pagination) -> MessagePage:
    """A page, with the cursor of the next one where there is one."""
    next_cursor = behind(rows[-1]) if rows and pagination.has_more else None
    return MessagePage(data=list(rows), pagination=pagination, next_cursor=next_cursor)
