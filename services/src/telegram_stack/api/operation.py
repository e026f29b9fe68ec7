"""What one path and method does: the same description routes it, guards it and documents it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telegram_stack.api.answers import failure
from telegram_stack.api.errors import ApiError
from telegram_stack.api.limits import RateLimit
from telegram_stack.api.params import Param
from telegram_stack.api.tokens import Scope, Token, find, presented
from telegram_stack.database import DatabaseUnavailableError

REQUESTS = Counter("telegram_api_requests_total", "Requests by route and status", ["method", "route", "status"])
SECONDS = Histogram("telegram_api_request_seconds", "Time to answer", ["route"])

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. `scope` None: for everybody.

    `answer` is the type of the whole JSON body, or None where `media` is not JSON. `errors` are the statuses that this
    operation has beside those that follow from `scope`, `params` and `body`; `others` are answers with a body of their
    own. `tagged`: it has an ETag, and 304 for who has it.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    scope: Scope | None = Scope.READ
    params: Sequence[Param[Any]] = ()
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    media: Sequence[str] = ("application/json",)
    status: int = 200
    errors: Sequence[int] = ()
    others: Mapping[int, Any] = field(default_factory=dict)
    tagged: bool = False


def permit(token: Token, scope: Scope | None) -> None:
    """Raise ApiError 403 when `token` may not do what `scope` is needed for."""
    if scope is not None and token.scope < scope:
        raise ApiError(403, "scope_missing", f"This needs a token of scope {scope.name.lower()}")


async def answered(endpoint: Endpoint, request: Request) -> Response:
    """The answer of `endpoint`. Raises ApiError, 503 where the database does not answer."""
    try:
        return await endpoint(request)
    except DatabaseUnavailableError as error:
        raise ApiError(503, "database_unavailable", "The database does not answer: try later") from error


def counted(path: str, answer: Endpoint, refused: Callable[[Request, ApiError], Response]) -> Endpoint:
    """`answer`, counted and timed under `path`, with the limits in its headers; `refused` answers for an ApiError."""

    async def count(request: Request) -> Response:
        started = time.perf_counter()
        request.state.limits = {}
        try:
            response = await answer(request)
        except ApiError as error:
            response = refused(request, error)
        except Exception:
            REQUESTS.labels(request.method, path, 500).inc()
            raise
        response.headers.update(request.state.limits)
        REQUESTS.labels(request.method, path, response.status_code).inc()
        SECONDS.labels(path).observe(time.perf_counter() - started)
        return response

    return count


class Guard:
    """Lets in who may, counts, and puts errors into the envelope."""

    def __init__(self, tokens: tuple[Token, ...], limit: RateLimit, exempt: Collection[str] = ()) -> None:
        """`exempt` names tokens that may ask as often as they like."""
        self._tokens = tokens
        self._limit = limit
        self._exempt = frozenset(exempt)

    def route(self, operation: Operation) -> Route:
        """`operation` behind its scope."""
        path, endpoint, scope = operation.path, operation.endpoint, operation.scope

        async def answer(request: Request) -> Response:
            if scope is not None:
                self._authorize(request, scope)
            return await answered(endpoint, request)

        return Route(path, counted(path, answer, lambda _request, error: failure(error)), methods=[operation.method])

    def _authorize(self, request: Request, scope: Scope) -> None:
        """Raises ApiError 429, 401 or 403."""
        secret = presented(request.headers)
        token = find(self._tokens, secret) if secret is not None else None
        self._count(request, token)
        if secret is None:
            raise ApiError(401, "token_missing", "A token is needed, in X-API-Key or Authorization: Bearer")
        if token is None:
            raise ApiError(401, "token_unknown", "The token is not known")
        permit(token, scope)
        request.state.token = token

    def _count(self, request: Request, token: Token | None) -> None:
        """A client is a token's name, or an address as long as it has none."""
        if token is not None and token.name in self._exempt:
            return
        address = request.client.host if request.client else "unknown"
        self.admit(request, f"token {token.name}" if token else f"address {address}")

    def admit(self, request: Request, client: str) -> None:
        """Count a request of `client`. Raises ApiError 429."""
        verdict = self._limit.take(client)
        request.state.limits = verdict.headers()
        if not verdict.allowed:
            raise ApiError(429, "rate_limited", f"More than {verdict.limit} requests a minute: try later")
