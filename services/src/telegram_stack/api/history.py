"""What a message said before it was edited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api.answers import Success, success
from telegram_stack.api.errors import not_found
from telegram_stack.api.message_ids import find_key
from telegram_stack.api.messages import ROW
from telegram_stack.api.operation import Operation
from telegram_stack.api.queries import references
from telegram_stack.database import Connection, Pool, transaction

_VERSIONS = """
SELECT h.version, h.message_type, h.text, h.entities, h.media, h.edit_date, h.received_at, h.replaced_at
FROM telegram.message_history AS h WHERE h.channel_id = %(channel)s AND h.message_id = %(message)s
UNION ALL
SELECT m.version, m.message_type, m.text, m.entities, m.media, m.edit_date, m.received_at, NULL
FROM telegram.message_keys AS k
JOIN telegram.messages AS m
  ON m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
WHERE k.channel_id = %(channel)s AND k.message_id = %(message)s
ORDER BY version
"""


class Version(msgspec.Struct, rename="camel"):
    """A message as it was from `edit_date` (None: from the beginning) until `replaced_at` (None: still)."""

    version: str
    message_type: str
    text: str
    entities: list[dict[str, Any]]
    media_refs: list[dict[str, Any]]
    edit_date: datetime | None
    received_at: datetime
    replaced_at: datetime | None


class History:
    """``/api/messages/{id}/history``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(
                method="GET",
                path="/api/messages/{id}/history",
                endpoint=self.versions,
                summary="Every version of a message that was received, the oldest first",
                params=(ROW,),
                answer=Success[list[Version]],
                errors=(404,),
            ),
        )

    async def versions(self, request: Request) -> Response:
        """The versions of one message."""
        name = ROW.in_path(request)

        async def work(connection: Connection) -> list[Version]:
            key = await find_key(connection, name)
            if key is None:
                return []
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(_VERSIONS, {"channel": key[0], "message": key[1]})
                return [_version(row) for row in await cursor.fetchall()]

        found = await transaction(self._pool, work)
        if not found:
            raise not_found(f"Message {name}")
        return success(found)


def _version(row: dict[str, Any]) -> Version:
    return Version(
        version=str(row["version"]),
        message_type=row["message_type"],
        text=row["text"],
        entities=row["entities"] or [],
        media_refs=references(row["media"]) if row["media"] else [],
        edit_date=row["edit_date"],
        received_at=row["received_at"],
        replaced_at=row["replaced_at"],
    )
