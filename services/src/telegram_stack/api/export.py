"""All messages of a filter in one answer, of any length, in the memory of one page.

Each page is a transaction of its own, so a slow client holds no connection of the database. Edits and deletions made
meanwhile show from the next page on; no message comes twice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from telegram_stack.api import params, queries
from telegram_stack.api.cursor import behind, cursor
from telegram_stack.api.messages import FILTERS, read_filter
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param, Query
from telegram_stack.api.queries import MessageFilter
from telegram_stack.api.shapes import Message
from telegram_stack.database import Pool, transaction

FORMAT = Param("format", params.one_of("ndjson", "csv"), "One JSON object a line, or CSV with a header", "ndjson")
SORT = Param("sort", params.one_of("asc", "desc"), "desc: the newest first", "asc")

_PAGE = 500
_MEDIA = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
_COLUMNS = (
    "id", "channelId", "messageId", "telegramDate", "receivedAt", "editDate", "deletedAt", "status", "source",
    "messageType", "mediaType", "senderId", "text", "metadata",
)  # fmt: skip
_encoder = msgspec.json.Encoder()


class Export:
    """``/api/messages/export``."""

    def __init__(self, pool: Pool, consumer: str) -> None:
        self._pool = pool
        self._consumer = consumer

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/messages/export",
                endpoint=self.export,
                summary="All messages of a filter as one stream; one that ends early was cut off by an error",
                params=(*FILTERS, SORT, FORMAT),
                media=tuple(_MEDIA.values()),
            ),
        )

    async def export(self, request: Request) -> Response:
        """Stream them."""
        query = Query(request.query_params)
        wanted, form, ascending = read_filter(query), FORMAT.of(query), SORT.of(query) == "asc"
        query.finish()
        pages = self._pages(wanted, ascending=ascending)
        first = await anext(pages)  # what the database refuses becomes an answer, not a torn stream

        async def lines() -> AsyncIterator[bytes]:
            if form == "csv":
                yield _csv([_COLUMNS])
            yield _write(form, first)
            async for page in pages:
                yield _write(form, page)

        headers = {"Content-Disposition": f'attachment; filename="messages.{form}"'}
        return StreamingResponse(lines(), headers=headers, media_type=_MEDIA[form])

    async def _pages(self, wanted: MessageFilter, *, ascending: bool) -> AsyncIterator[list[Message]]:
        """Page after page; the first one also where there is nothing."""
        place = None
        while True:
            begin = place
            page = await transaction(
                self._pool,
                lambda connection: queries.list_behind(
                    connection,
                    self._consumer,
                    wanted,
                    begin,  # noqa: B023 - awaited within its turn
                    ascending=ascending,
                    limit=_PAGE,
                ),
            )
            yield page
            if len(page) < _PAGE:
                return
            place = cursor(behind(page[-1]))


def _write(form: str, page: Sequence[Message]) -> bytes:
    if form == "ndjson":
        return _encoder.encode_lines(page)
    rows = (msgspec.to_builtins(message) for message in page)
    return _csv([[_cell(row[name]) for name in _COLUMNS] for row in rows])


def _cell(value: object) -> object:
    return _encoder.encode(value).decode() if isinstance(value, dict) else value


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
