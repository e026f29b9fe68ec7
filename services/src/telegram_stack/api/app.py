"""The routes: legacy paths, parameters and names; see `queries` for the shapes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import msgspec
from prometheus_client import Counter, Histogram
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telegram_stack import program
from telegram_stack.api import params, queries
from telegram_stack.api.errors import ApiError, FieldError, invalid, not_found
from telegram_stack.api.health import Health, overall
from telegram_stack.api.params import Query
from telegram_stack.api.queries import MessageFilter
from telegram_stack.api.tokens import Scope, Token, find, presented
from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, transaction
from telegram_stack.events import utc_now
from telegram_stack.ids import key_of
from telegram_stack.observability.http import metrics_response

NAME = "telegram-gateway-api"

REQUESTS = Counter("telegram_api_requests_total", "Requests by route and status", ["method", "route", "status"])
SECONDS = Histogram("telegram_api_request_seconds", "Time to answer", ["route"])

Endpoint = Callable[[Request], Awaitable[Response]]


class MarkProcessed(msgspec.Struct, rename="camel"):
    """Body of mark-processed. Ids are Telegram's message ids (with the channel where ambiguous) or row ids."""

    message_ids: Annotated[list[int | str], msgspec.Meta(min_length=1, max_length=params.MAX_LIMIT)]
    processed_by: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    channel_id: int | str | None = None


Label = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")]


class NewChannel(msgspec.Struct, rename="camel"):
    """Body of a registration."""

    channel_id: int | str
    label: Label | None = None
    description: Label | None = None
    is_active: bool = True


class ChannelChange(msgspec.Struct, rename="camel"):
    """Body of a change; what is absent stays."""

    label: Label | msgspec.UnsetType | None = msgspec.UNSET
    description: Label | msgspec.UnsetType | None = msgspec.UNSET
    is_active: bool | msgspec.UnsetType = msgspec.UNSET


class Api:
    """The endpoints over one pool. `consumer` is the one whose processing state is shown."""

    def __init__(self, pool: Pool, tokens: tuple[Token, ...], health: Health, consumer: str) -> None:
        self._pool = pool
        self._tokens = tokens
        self._health = health
        self._consumer = consumer
        self._started = time.monotonic()

    def application(self) -> Starlette:
        """The ASGI application."""

        def route(path: str, endpoint: Endpoint, method: str = "GET", scope: Scope | None = Scope.READ) -> Route:
            return Route(path, self._answering(path, endpoint, scope), methods=[method])

        routes = [
            route("/", self.info, scope=None),
            route("/health", self.health, scope=None),
            route("/metrics", self.metrics, scope=None),
            route("/api/messages", self.list_messages),
            route("/api/messages/unprocessed", self.unprocessed),
            route("/api/messages/mark-processed", self.mark_processed, "POST", Scope.WRITE),
            route("/api/messages/{id}", self.get_message),
            route("/api/channels", self.list_channels),
            route("/api/channels", self.add_channel, "POST", Scope.WRITE),
            route("/api/channels/{id}", self.change_channel, "PUT", Scope.WRITE),
            route("/api/channels/{id}", self.remove_channel, "DELETE", Scope.WRITE),
        ]
        return Starlette(
            routes=routes,
            exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        )

    def _answering(self, path: str, endpoint: Endpoint, scope: Scope | None) -> Endpoint:
        """`endpoint` behind its scope, counted, with errors in the envelope."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            try:
                if scope is not None:
                    self._authorize(request, scope)
                response = await endpoint(request)
            except ApiError as error:
                response = _failure(error)
            except DatabaseUnavailableError:
                response = _failure(ApiError(503, "database_unavailable", "The database does not answer: try later"))
            except Exception:
                REQUESTS.labels(request.method, path, 500).inc()
                raise
            REQUESTS.labels(request.method, path, response.status_code).inc()
            SECONDS.labels(path).observe(time.perf_counter() - started)
            return response

        return answer

    def _authorize(self, request: Request, scope: Scope) -> None:
        secret = presented(request.headers)
        if secret is None:
            raise ApiError(401, "token_missing", "A token is needed, in X-API-Key or Authorization: Bearer")
        token = find(self._tokens, secret)
        if token is None:
            raise ApiError(401, "token_unknown", "The token is not known")
        if token.scope < scope:
            raise ApiError(403, "scope_missing", f"This needs a token of scope {scope.name.lower()}")

    async def info(self, _request: Request) -> Response:
        """What runs here."""
        return _json(
            {
                "service": NAME,
                "version": program.version(),
                "status": "running",
                "timestamp": utc_now(),
                "endpoints": {
                    "health": "/health",
                    "metrics": "/metrics",
                    "messages": "/api/messages",
                    "channels": "/api/channels",
                },
            }
        )

    async def health(self, _request: Request) -> Response:
        """503 when unhealthy; degraded is 200."""
        components = await self._health.components()
        status = overall(components)
        body = {
            "status": status,
            "service": NAME,
            "version": program.version(),
            "timestamp": utc_now(),
            "uptimeSeconds": round(time.monotonic() - self._started),
            "components": components,
        }
        return _json(body, 503 if status == "unhealthy" else 200)

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        return metrics_response()

    async def list_messages(self, request: Request) -> Response:
        """A page of messages, newest first."""
        query = Query(request.query_params)
        wanted = MessageFilter(
            channels=query.many("channelId", params.channel_id),
            messages=query.many("messageId", params.message_id),
            statuses=query.many("status", params.status),
            sources=query.many("source", params.words(100)),
            since=query.one("from", params.moment, None),
            until=query.one("to", params.moment, None),
            search=query.one("search", params.words(200), None),
            include_deleted=query.one("includeDeleted", params.boolean, False),
        )
        ascending = query.one("sort", str.lower, "desc") == "asc"
        limit = query.one("limit", params.integer(1, params.MAX_LIMIT), 50)
        offset = query.one("offset", params.integer(0, params.MAX_OFFSET), 0)
        query.finish()
        rows, total = await transaction(
            self._pool,
            lambda connection: queries.list_messages(
                connection, self._consumer, wanted, ascending=ascending, limit=limit, offset=offset
            ),
        )
        pagination = {"total": total, "limit": limit, "offset": offset, "hasMore": offset + len(rows) < total}
        return _success(rows, pagination=pagination)

    async def get_message(self, request: Request) -> Response:
        """One message by its row id."""
        name = params.from_path(request, "id", params.row_name)

        async def work(connection: Connection) -> queries.Message | None:
            key = _own_key(name) or (await queries.find_legacy_ids(connection, [name])).get(name)
            return await queries.get_message(connection, self._consumer, key) if key else None

        message = await transaction(self._pool, work)
        if message is None:
            raise not_found(f"Message {name}")
        return _success(message)

    async def unprocessed(self, request: Request) -> Response:
        """The oldest messages of a channel that a consumer has not processed."""
        query = Query(request.query_params)
        query.required("channel")
        channel = query.one("channel", params.channel_id, 0)
        statuses = query.many("status", params.status) or ["received"]
        consumer = query.one("excludeProcessedBy", params.words(63), self._consumer)
        limit = query.one("limit", params.integer(1, params.MAX_LIMIT), 1000)
        query.finish()
        rows = await transaction(
            self._pool, lambda connection: queries.unprocessed(connection, consumer, channel, statuses, limit)
        )
        filters = {"channel": str(channel), "status": statuses, "excludeProcessedBy": consumer, "limit": limit}
        return _success(rows, count=len(rows), filters=filters)

    async def mark_processed(self, request: Request) -> Response:
        """Mark messages as processed by a consumer."""
        body = await params.body(request, MarkProcessed)
        channel = None if body.channel_id is None else _channel(body.channel_id)
        ids = _ids(body.message_ids)

        async def work(connection: Connection) -> tuple[int, list[str]]:
            keys = await _resolve(connection, ids, channel)
            updated = await queries.mark_processed(connection, body.processed_by, sorted(set(keys.values())))
            return updated, [str(given) for given, _ in ids if given not in keys]

        updated, missing = await transaction(self._pool, work)
        return _success({"requested": len(body.message_ids), "updated": updated, "notFound": missing})

    async def list_channels(self, _request: Request) -> Response:
        """The registry."""
        return _success(await transaction(self._pool, queries.list_channels))

    async def add_channel(self, request: Request) -> Response:
        """Register a channel."""
        body = await params.body(request, NewChannel)
        channel = _channel(body.channel_id)
        values = {"label": body.label, "description": body.description, "is_active": body.is_active}
        added = await transaction(self._pool, lambda connection: queries.add_channel(connection, channel, values))
        if added is None:
            raise ApiError(409, "exists", f"Channel {channel} is registered already: change it with PUT")
        return _success(added, status=201)

    async def change_channel(self, request: Request) -> Response:
        """Change label, description or whether it is active."""
        channel = params.from_path(request, "id", params.channel_id)
        change = await params.body(request, ChannelChange)
        values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        if not values:
            raise invalid([FieldError("body", "has none of label, description, isActive")])
        return await self._change(channel, values)

    async def remove_channel(self, request: Request) -> Response:
        """Take a channel out of the active ones. Its row stays: it holds the cursor of gap recovery."""
        return await self._change(params.from_path(request, "id", params.channel_id), {"is_active": False})

    async def _change(self, channel: int, values: dict[str, Any]) -> Response:
        changed = await transaction(self._pool, lambda connection: queries.change_channel(connection, channel, values))
        if changed is None:
            raise not_found(f"Channel {channel}")
        return _success(changed)


def _channel(given: int | str) -> int:
    try:
        return params.channel_id(str(given))
    except ValueError as error:
        raise invalid([FieldError("channelId", str(error))]) from error


def _own_key(name: str) -> tuple[int, int] | None:
    """The key in a row id that is ours; None for one of the legacy tables."""
    return key_of(UUID(name)) if "-" in name else None


def _ids(given: list[int | str]) -> list[tuple[int | str, str | int]]:
    """What was given beside what it means: a row id, else Telegram's message id."""
    meant: list[tuple[int | str, str | int]] = []
    errors = []
    for position, item in enumerate(given):
        try:
            is_row = isinstance(item, str) and "-" in item[1:]
            meant.append((item, params.row_name(str(item)) if is_row else params.message_id(str(item))))
        except ValueError:
            errors.append(FieldError(f"messageIds[{position}]", "must be a message id or a row id"))
    if errors:
        raise invalid(errors)
    return meant


async def _resolve(
    connection: Connection, ids: list[tuple[int | str, str | int]], channel: int | None
) -> dict[int | str, tuple[int, int]]:
    """The key of each id that is stored; raises ApiError 409 where a message id fits several channels."""
    rows = {name: _own_key(name) for _, name in ids if isinstance(name, str)}
    old = await queries.find_legacy_ids(connection, [name for name, key in rows.items() if key is None])
    exact = old | {name: key for name, key in rows.items() if key is not None}
    numbers = [meant for _, meant in ids if isinstance(meant, int)]
    found = await queries.find_keys(connection, numbers + [message for _, message in exact.values()], channel)
    by_number: dict[int, list[tuple[int, int]]] = {}
    for key in found:
        by_number.setdefault(key[1], []).append(key)
    ambiguous = [
        FieldError(f"messageIds[{position}]", "is in several channels: give channelId, or row ids")
        for position, (_, meant) in enumerate(ids)
        if isinstance(meant, int) and len(by_number.get(meant, ())) > 1
    ]
    if ambiguous:
        raise ApiError(409, "ambiguous", "Some message ids are in several channels: give channelId", ambiguous)
    stored = set(found)
    keys: dict[int | str, tuple[int, int]] = {}
    for given, meant in ids:
        match = exact.get(meant) if isinstance(meant, str) else next(iter(by_number.get(meant, ())), None)
        if match in stored:
            keys[given] = match
    return keys


_encoder = msgspec.json.Encoder()


def _json(body: object, status: int = 200) -> Response:
    return Response(_encoder.encode(body), status, media_type="application/json")


def _success(data: object, *, status: int = 200, **more: object) -> Response:
    return _json({"success": True, "data": data, **more}, status)


def _failure(error: ApiError) -> Response:
    body = {"success": False, "message": error.message, "status": error.status, "code": error.code}
    response = _json({**body, "errors": error.errors}, error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status == 503:
        response.headers["Retry-After"] = "5"
    return response


_CODES = {404: ("not_found", "No such path"), 405: ("method_not_allowed", "The path knows other methods")}


async def _http_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    code, message = _CODES.get(status, ("refused", "The request was refused"))
    response = _failure(ApiError(status, code, message))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return _failure(ApiError(500, "internal", "An error in the API: its log has the details"))
