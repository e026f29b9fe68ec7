"""``/photo/{channel}/{message}``: photos on demand, at the gateway's port."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.gateway.access import Route
from telegram_stack.telegram.photos import PhotoMissingError, Photos, PhotoUnavailableError

_LARGEST_ID = 2**31 - 1


def photo_routes(photos: Photos, answered: Callable[[str], None]) -> list[Route]:
    """``GET /photo/{channel_id}/{message_id}``: the JPEG; 404 without one, 503 with ``Retry-After`` when not now.

    ``DELETE`` there, or of ``/photo/{channel_id}``: what is kept of it goes, for messages that are erased (204).

    `answered` is told ``cached``, ``downloaded``, ``missing`` or ``unavailable``.
    """

    async def get(request: Request) -> Response:
        try:
            channel_id, message_id = (int(request.path_params[name]) for name in ("channel_id", "message_id"))
        except ValueError:
            return _error(422, "channel and message ids are numbers, the channel's marked (-100…)")
        if not 0 < message_id <= _LARGEST_ID:
            return _error(404, f"there is no message {message_id}")
        try:
            data, where = await photos.get(channel_id, message_id)
        except PhotoMissingError as error:
            answered("missing")
            return _error(404, str(error))
        except PhotoUnavailableError as error:
            answered("unavailable")
            return _error(503, str(error), {"Retry-After": str(error.retry_after)})
        answered(where)
        return Response(data, media_type="image/jpeg")

    async def forget(request: Request) -> Response:
        try:
            channel_id, *message_ids = map(int, request.path_params.values())
        except ValueError:
            return _error(422, "channel and message ids are numbers, the channel's marked (-100…)")
        if message_ids:
            photos.forget(channel_id, message_ids[0])
        else:
            photos.forget_channel(channel_id)
        return Response(status_code=204)

    return [
        ("/photo/{channel_id}/{message_id}", "GET", get),
        ("/photo/{channel_id}/{message_id}", "DELETE", forget),
        ("/photo/{channel_id}", "DELETE", forget),
    ]


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode({"error": reason}), status, headers, "application/json")
