"""The gateway's HTTP port: health, metrics, the path of single messages, and the log-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from telegram_stack.gateway.access import Access, Route
from telegram_stack.gateway.health import HealthCheck
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.gateway.trace import Trace
from telegram_stack.observability.http import metrics_response
from telegram_stack.telegram.login import Login, LoginConflictError
from telegram_stack.telegram.source import TelegramSource

T = TypeVar("T", bound=msgspec.Struct)


class _Who(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    phone: str | None = None
    bot_token: str | None = None

    def __post_init__(self) -> None:
        if (self.phone is None) == (self.bot_token is None):
            raise ValueError("one of the two")


class _Value(msgspec.Struct, forbid_unknown_fields=True):
    value: str


def application(
    health: HealthCheck,
    metrics: Metrics,
    *,
    registry: CollectorRegistry,
    trace: Trace,
    source: TelegramSource,
    login: Login,
    access: Access,
    more: Sequence[Route] = (),
) -> Starlette:
    """``/health`` (200 when it serves, else 503), ``/metrics``, ``/trace``, and the log-in.

    ``GET /login`` tells how it is, ``POST /login`` {phone} or {botToken} begins it, ``POST /login/input`` {value} gives
    the code or the password, ``DELETE /login`` cancels it. 409 when it is not in a state for that. `more` is guarded as
    well.
    """

    async def get_health(_request: Request) -> Response:
        found = await health.check()
        return _json(found, 200 if found.serving else 503)

    async def get_metrics(_request: Request) -> Response:
        await metrics.refresh(source)
        return metrics_response(registry)

    async def get_trace(request: Request) -> Response:
        channel_id, message_id = request.path_params["channel_id"], request.path_params["message_id"]
        try:
            path = trace.path(int(channel_id), int(message_id))
        except ValueError:
            return _json({"error": "channel and message ids are numbers, the channel's marked (-100…)"}, 422)
        if path is None:
            return _json({"error": f"message {message_id} of channel {channel_id} is not among the last events"}, 404)
        return _json(path)

    async def get_traces(_request: Request) -> Response:
        return _json(trace.paths())

    async def get_login(_request: Request) -> Response:
        return _json(login.state)

    async def start_login(request: Request) -> Response:
        return await _login(request, _Who, lambda body: login.start(body.phone or "", body.bot_token))

    async def give_input(request: Request) -> Response:
        return await _login(request, _Value, lambda body: login.give(body.value))

    async def cancel_login(_request: Request) -> Response:
        try:
            await login.cancel()
        except LoginConflictError as error:
            return _json({"error": str(error)}, 409)
        return _json(login.state)

    async def _login(request: Request, kind: type[T], act: Callable[[T], None]) -> Response:
        try:
            act(msgspec.json.decode(await request.body(), type=kind))
        except msgspec.MsgspecError:  # its words could show parts of a secret
            names = " or ".join(kind.__struct_encode_fields__)
            return _json({"error": f"the body must be an object with {names}, a string"}, 422)
        except LoginConflictError as error:
            return _json({"error": str(error)}, 409)
        return _json(login.state, 202)

    routes: list[Route] = [
        ("/health", "GET", get_health),
        ("/metrics", "GET", get_metrics),
        ("/trace", "GET", get_traces),
        ("/trace/{channel_id}/{message_id}", "GET", get_trace),
        ("/login", "GET", get_login),
        ("/login", "POST", start_login),
        ("/login", "DELETE", cancel_login),
        ("/login/input", "POST", give_input),
        *more,
    ]
    return Starlette(
        routes=[StarletteRoute(path, access.guarded(handler), methods=[method]) for path, method, handler in routes]
    )


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
