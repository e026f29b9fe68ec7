"""What clients do with messages: mark them, delete them softly, ask for them again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params, queries
from telegram_stack.api.answers import Success, success
from telegram_stack.api.errors import not_found
from telegram_stack.api.message_ids import find_key, read_ids, resolve
from telegram_stack.api.messages import ROW
from telegram_stack.api.operation import Operation
from telegram_stack.api.registry import given_channel
from telegram_stack.api.shapes import Marked, Message
from telegram_stack.api.tokens import Scope
from telegram_stack.database import Connection, Pool, transaction

Words = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\x00]*$")]


class MarkProcessed(msgspec.Struct, rename="camel"):
    """Body of mark-processed. Ids are Telegram's message ids (with the channel where ambiguous) or row ids."""

    message_ids: Annotated[list[int | str], msgspec.Meta(min_length=1, max_length=params.MAX_LIMIT)]
    processed_by: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    channel_id: int | str | None = None


class Deletion(msgspec.Struct, rename="camel"):
    """Body of a soft deletion; it may be left out."""

    reason: Words | None = None


class Again(msgspec.Struct, rename="camel"):
    """Body of a request to process a message again; it may be left out."""

    requested_by: Words | None = None


class Changes:
    """The operations that change the state of messages. `consumer` is the one whose state is shown."""

    def __init__(self, pool: Pool, consumer: str) -> None:
        self._pool = pool
        self._consumer = consumer

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="POST",
                path="/api/messages/mark-processed",
                endpoint=self.mark_processed,
                summary="Mark messages as processed by a consumer",
                scope=Scope.WRITE,
                body=MarkProcessed,
                answer=Success[Marked],
                errors=(409,),
            ),
            Operation(
                method="DELETE",
                path="/api/messages/{id}",
                endpoint=self.delete,
                summary="Delete a message softly: it stays, with the time and the reason, and is shown no more",
                scope=Scope.WRITE,
                params=(ROW,),
                body=Deletion,
                answer=Success[Message],
                errors=(404,),
            ),
            Operation(
                method="POST",
                path="/api/messages/{id}/reprocess",
                endpoint=self.reprocess,
                summary="Ask the consumer to process a message again",
                scope=Scope.WRITE,
                params=(ROW,),
                body=Again,
                answer=Success[Message],
                errors=(404,),
            ),
        )

    async def mark_processed(self, request: Request) -> Response:
        """Mark messages as processed by a consumer."""
        body = await params.body(request, MarkProcessed)
        channel = None if body.channel_id is None else given_channel(body.channel_id)
        ids = read_ids(body.message_ids)

        async def work(connection: Connection) -> tuple[int, list[str]]:
            keys = await resolve(connection, ids, channel)
            updated = await queries.mark_processed(connection, body.processed_by, sorted(set(keys.values())))
            return updated, [str(given) for given, _ in ids if given not in keys]

        updated, missing = await transaction(self._pool, work)
        return success(Marked(requested=len(body.message_ids), updated=updated, not_found=missing))

    async def delete(self, request: Request) -> Response:
        """Mark a message as deleted; one that is stays as it is."""
        name = ROW.in_path(request)
        body = await params.body(request, Deletion, may_be_empty=True)
        note = {"deletion_reason": body.reason} if body.reason else {}

        return await self._change(
            name, lambda connection, key: queries.delete_message(connection, self._consumer, key, note)
        )

    async def reprocess(self, request: Request) -> Response:
        """Mark a message as one to process again."""
        name = ROW.in_path(request)
        body = await params.body(request, Again, may_be_empty=True)
        note = {"reprocess_requested_by": body.requested_by} if body.requested_by else {}

        return await self._change(
            name,
            lambda connection, key: queries.set_status(connection, self._consumer, key, "reprocess_pending", note),
        )

    async def _change(self, name: str, act: Callable[[Connection, tuple[int, int]], Awaitable[bool]]) -> Response:
        """`act` on the message with that row id, and show it as it is then. Raises ApiError 404."""

        async def work(connection: Connection) -> Message | None:
            key = await find_key(connection, name)
            if key is None or not await act(connection, key):
                return None
            return await queries.get_message(connection, self._consumer, key)

        message = await transaction(self._pool, work)
        if message is None:
            raise not_found(f"Message {name}")
        return success(message)
