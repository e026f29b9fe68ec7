"""Full-text search."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params, queries
from telegram_stack.api.answers import tagged
from telegram_stack.api.cached import Answers
from telegram_stack.api.messages import CURSOR, page_of
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.shapes import MessagePage, Pagination
from telegram_stack.database import Connection

WORDS = Param(
    "q", params.words(200), 'Words, in any form; "several in a row"; -not this one; one or another', "", required=True
)
CHANNEL = Param("channelId", params.channel_id, "Only this channel")
LIMIT = Param("limit", params.integer(1, 1000), "How many at most", default=50)


class Search:
    """``/api/messages/search``."""

    def __init__(self, answers: Answers, consumer: str) -> None:
        self._answers = answers
        self._consumer = consumer

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/messages/search",
                endpoint=self.search,
                summary="Messages by their words, in the language of the database's search, the newest first",
                params=(WORDS, CHANNEL, LIMIT, CURSOR),
                answer=MessagePage,
                tagged=True,
            ),
        )

    async def search(self, request: Request) -> Response:
        """A page of what was found."""
        query = Query(request.query_params)
        words, limit, place = WORDS.of(query), LIMIT.of(query), CURSOR.of(query)
        channel: int | None = CHANNEL.of(query)
        query.finish()

        async def make(connection: Connection) -> MessagePage:
            rows = await queries.search(
                connection, self._consumer, words, channel=channel, place=place, limit=limit + 1
            )
            return page_of(rows[:limit], Pagination(limit=limit, has_more=len(rows) > limit))

        name = ("search", self._consumer, words, channel, limit, place)
        return tagged(request, await self._answers.get(name, [channel] if channel else [], make))
