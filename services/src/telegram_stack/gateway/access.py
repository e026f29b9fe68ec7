"""Who may ask what at the gateway's port."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]
Route = tuple[str, str, Handler]
"""A path, its method, and who handles it."""

_PUBLIC = ("/health",)
_WITHOUT_TOKEN = ("/health", "/metrics")


class Access:
    """With a token, everything but health needs it; without one, everything is open on loopback only."""

    def __init__(self, bind_address: str, token: str | None) -> None:
        self._token = token
        self._local = _is_loopback(bind_address)

    def guarded(self, handler: Handler) -> Handler:
        """`handler`, for those who may."""

        async def guarded(request: Request) -> Response:
            refusal = self._refusal(request)
            return await handler(request) if refusal is None else refusal

        return guarded

    def _refusal(self, request: Request) -> Response | None:
        path = request.url.path
        if self._token is not None and path not in _PUBLIC:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return _refused(401, "a bearer token is needed: the gateway's token_file names the credential with it")
        if self._token is None and not self._local and path not in _WITHOUT_TOKEN:
            return _refused(403, "the port is not on loopback and has no token: set token_file in gateway.toml")
        return None


def _refused(status: int, reason: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Response(msgspec.json.encode({"error": reason}), status, headers, "application/json")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
