"""``/sync-messages``: a backfill on request, at the gateway's port."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.gateway.access import Route
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.sync import Sync, SyncConflictError


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    channels: list[int | str] = []
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3


def sync_routes(sync: Sync) -> list[Route]:
    """``POST /sync-messages`` {limit, channels, concurrency} begins one (202, or 409), ``GET`` tells how far it is."""

    async def begin(request: Request) -> Response:
        try:
            body = msgspec.json.decode(await request.body() or b"{}", type=_Body)
            channels = list(dict.fromkeys(map(_channel_id, body.channels)))
        except (msgspec.MsgspecError, ValueError) as error:
            return _json({"error": str(error)}, 422)
        try:
            await sync.begin(body.limit, channels, body.concurrency)
        except SyncConflictError as error:
            return _json({"error": str(error)}, 409)
        return _json(sync.progress, 202)

    async def tell(_request: Request) -> Response:
        return _json(sync.progress)

    return [("/sync-messages", "POST", begin), ("/sync-messages", "GET", tell)]


def _channel_id(given: int | str) -> int:
    """A channel's marked id, also from one without its ``-100``. Raises ValueError."""
    try:
        number = int(given)
    except ValueError:
        raise ValueError(f"{given!r} is no channel id: give a number, -100…") from None
    return number if number < 0 else marked(number)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
