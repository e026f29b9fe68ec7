"""Answers in the legacy envelope."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Generic, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack.api.errors import ApiError, FieldError

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


class Success(msgspec.Struct, Generic[T], kw_only=True):
    """What a client asked for, in `data`."""

    success: Literal[True] = True
    data: T


class Failure(msgspec.Struct, kw_only=True):
    """Why not: `message` for people, `code` for programs, `errors` for each parameter or member at fault."""

    success: Literal[False] = False
    message: str
    status: int
    code: str
    errors: list[FieldError]


def json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body`, which brings its own envelope."""
    return Response(_encoder.encode(body), status, headers, "application/json")


def tagged(request: Request, body: bytes) -> Response:
    """A JSON body with its ETag; 304 without it for a client that has just this one."""
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = [part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def success(data: object, status: int = 200) -> Response:
    """`data` in the envelope."""
    return json(Success(data=data), status)


def encode(body: object) -> bytes:
    """The JSON of `body`."""
    return _encoder.encode(body)


def failure(error: ApiError) -> Response:
    """`error` in the envelope, with the headers that its status asks for."""
    headers = dict(error.headers)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 503:
        headers.setdefault("Retry-After", "5")
    body = Failure(message=error.message, status=error.status, code=error.code, errors=error.errors)
    return json(body, error.status, headers)


_CODES = {404: ("not_found", "No such path"), 405: ("method_not_allowed", "The path knows other methods")}


async def http_error(_request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself."""
    status = getattr(error, "status_code", 500)
    code, message = _CODES.get(status, ("refused", "The request was refused"))
    response = failure(ApiError(status, code, message))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def unexpected(_request: Request, _error: Exception) -> Response:
    """A fault of ours: the client learns no more than that."""
    return failure(ApiError(500, "internal", "An error in the API: its log has the details"))
