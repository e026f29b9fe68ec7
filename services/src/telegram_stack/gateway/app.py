"""The gateway's HTTP port: health, metrics, and the path of single messages."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telegram_stack.gateway.health import HealthCheck
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.gateway.trace import Trace
from telegram_stack.observability.http import metrics_response
from telegram_stack.telegram.source import TelegramSource


def application(
    health: HealthCheck, metrics: Metrics, registry: CollectorRegistry, trace: Trace, source: TelegramSource
) -> Starlette:
    """``/health`` (200 when it serves, else 503), ``/metrics``, ``/trace`` and ``/trace/{channel_id}/{message_id}``."""

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

    return Starlette(
        routes=[
            Route("/health", get_health),
            Route("/metrics", get_metrics),
            Route("/trace", get_traces),
            Route("/trace/{channel_id}/{message_id}", get_trace),
        ]
    )


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
