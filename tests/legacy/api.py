"""The legacy REST API, as much of it as shows that a client goes on. Run in its folder: python -m tests.legacy.api."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import uvicorn
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.legacy import settings
from tests.legacy.settings import Settings

_MESSAGES = """
SELECT
  id::text AS id, channel_id::text AS "channelId", message_id::text AS "messageId", text, caption, source, status,
  metadata, received_at::text AS "receivedAt", telegram_date::text AS "telegramDate", count(*) OVER () AS total
FROM telegram_gateway.messages
WHERE deleted_at IS NULL AND (%(channel)s::text IS NULL OR channel_id::text = %(channel)s)
ORDER BY received_at DESC LIMIT %(limit)s
"""


class Api:
    """The handlers."""

    def __init__(self, given: Settings) -> None:
        self._token = given.api_token
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            given.database, min_size=1, max_size=2, open=False, kwargs={"row_factory": dict_row, "autocommit": True}
        )

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [Route("/health", self._health), Route("/api/messages", self._messages)]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with self._pool:
            yield

    async def _health(self, _request: Request) -> Response:
        try:
            async with self._pool.connection(timeout=3) as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error:
            return JSONResponse({"status": "unhealthy", "database": "disconnected"}, 503)
        return JSONResponse({"status": "healthy", "database": "connected"})

    async def _messages(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("x-api-key", "").encode(), self._token.encode()):
            return JSONResponse({"success": False, "message": "Unauthorized"}, 401)
        limit = min(int(request.query_params.get("limit", 50)), 200)
        values = {"channel": request.query_params.get("channelId"), "limit": limit}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_MESSAGES.encode(), values)).fetchall()
        total = rows[0]["total"] if rows else 0
        data = [{name: value for name, value in row.items() if name != "total"} for row in rows]
        pagination = {"total": total, "limit": limit, "offset": 0, "hasMore": total > len(rows)}
        return JSONResponse({"success": True, "data": data, "pagination": pagination})


def main() -> None:
    """Entry point."""
    given = settings.read()
    uvicorn.run(Api(given).application(), host="127.0.0.1", port=given.api_port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
