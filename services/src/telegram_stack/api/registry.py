"""The registry of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from psycopg import sql
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api import params
from telegram_stack.api.answers import Success, encode, success, tagged
from telegram_stack.api.errors import ApiError, FieldError, invalid, not_found
from telegram_stack.api.operation import Operation
from telegram_stack.api.params import Param
from telegram_stack.api.shapes import Channel, number_text
from telegram_stack.api.tokens import Scope
from telegram_stack.database import Connection, Pool, transaction

Label = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")]
Account = Annotated[str, msgspec.Meta(pattern="^([a-z][a-z0-9-]{0,30})?$")]

CHANNEL = Param("id", params.channel_id, "The channel's marked id (-100…)", place="path")


class NewChannel(msgspec.Struct, rename="camel"):
    """Body of a registration."""

    channel_id: int | str
    label: Label | None = None
    description: Label | None = None
    is_active: bool = True
    account: Account = ""


class ChannelChange(msgspec.Struct, rename="camel"):
    """Body of a change; what is absent stays."""

    label: Label | msgspec.UnsetType | None = msgspec.UNSET
    description: Label | msgspec.UnsetType | None = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET
    account: Account | msgspec.UnsetType = msgspec.UNSET


class Registry:
    """The endpoints of ``/api/channels``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        one, path = "/api/channels/{id}", "/api/channels"
        write = Scope.WRITE
        return (
            Operation(
                method="GET",
                path=path,
                endpoint=self.page,
                summary="The registered channels",
                answer=Success[list[Channel]],
                tagged=True,
            ),
            Operation(
                method="POST",
                path=path,
                endpoint=self.add,
                summary="Register a channel",
                scope=write,
                body=NewChannel,
                answer=Success[Channel],
                status=201,
                errors=(409,),
            ),
            Operation(
                method="PUT",
                path=one,
                endpoint=self.change,
                summary="Change label, description, account or whether a channel is active",
                scope=write,
                params=(CHANNEL,),
                body=ChannelChange,
                answer=Success[Channel],
                errors=(404,),
            ),
            Operation(
                method="DELETE",
                path=one,
                endpoint=self.remove,
                summary="Take a channel out of the active ones",
                scope=write,
                params=(CHANNEL,),
                answer=Success[Channel],
                errors=(404,),
            ),
        )

    async def page(self, request: Request) -> Response:
        """The registry."""
        return tagged(request, encode(Success(data=await transaction(self._pool, list_channels))))

    async def add(self, request: Request) -> Response:
        """Register a channel."""
        body = await params.body(request, NewChannel)
        channel = given_channel(body.channel_id)
        values = {name: value for name, value in msgspec.structs.asdict(body).items() if name != "channel_id"}
        added = await transaction(self._pool, lambda connection: add_channel(connection, channel, values))
        if added is None:
            raise ApiError(409, "exists", f"Channel {channel} is registered already: change it with PUT")
        return success(added, 201)

    async def change(self, request: Request) -> Response:
        """Change label, description, account or whether it is active."""
        channel = CHANNEL.in_path(request)
        change = await params.body(request, ChannelChange)
        values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        if not values:
            raise invalid([FieldError("body", "has none of label, description, isActive, account")])
        return await self._change(channel, values)

    async def remove(self, request: Request) -> Response:
        """Take a channel out of the active ones. Its row stays: it holds the cursor of gap recovery."""
        return await self._change(CHANNEL.in_path(request), {"is_active": False})

    async def _change(self, channel: int, values: dict[str, Any]) -> Response:
        changed = await transaction(self._pool, lambda connection: change_channel(connection, channel, values))
        if changed is None:
            raise not_found(f"Channel {channel}")
        return success(changed)


def given_channel(given: int | str) -> int:
    """The channel that a body names. Raises ApiError 422."""
    try:
        return params.channel_id(str(given))
    except ValueError as error:
        raise invalid([FieldError("channelId", str(error))]) from error


_CHANNEL_COLUMNS = (
    "channel_id, label, description, title, username, is_active, account, last_message_id, created_at, updated_at"
)


async def list_channels(connection: Connection) -> list[Channel]:
    """The whole registry."""
    return await _channels(connection, f"SELECT {_CHANNEL_COLUMNS} FROM telegram.channels ORDER BY channel_id", {})  # noqa: S608


async def add_channel(connection: Connection, channel: int, values: dict[str, Any]) -> Channel | None:
    """Register `channel`; None when it is there already."""
    query = f"""
        INSERT INTO telegram.channels (channel_id, label, description, is_active, account)
        VALUES (%(channel)s, %(label)s, %(description)s, %(is_active)s, %(account)s)
        ON CONFLICT (channel_id) DO NOTHING RETURNING {_CHANNEL_COLUMNS}"""  # noqa: S608
    return next(iter(await _channels(connection, query, {"channel": channel, **values})), None)


async def change_channel(connection: Connection, channel: int, values: dict[str, Any]) -> Channel | None:
    """Set the columns of `values` (label, description, is_active, account); None when there is no such channel."""
    changes = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in sorted(values)]
    query = sql.SQL("UPDATE telegram.channels SET {} WHERE channel_id = %(channel)s RETURNING {}").format(
        sql.SQL(", ").join([*changes, sql.SQL("updated_at = now()")]), sql.SQL(_CHANNEL_COLUMNS)
    )
    return next(iter(await _channels(connection, query, {"channel": channel, **values})), None)


async def _channels(connection: Connection, query: Any, values: dict[str, Any]) -> list[Channel]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        rows = await cursor.fetchall()
    return [
        Channel(
            id=str(row["channel_id"]),
            **{
                **row,
                "channel_id": str(row["channel_id"]),
                "last_message_id": number_text(row["last_message_id"]),
            },
        )
        for row in rows
    ]
