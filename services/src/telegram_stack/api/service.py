"""What runs here, and how it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack import program
from telegram_stack.api.answers import json
from telegram_stack.api.health import Component, Health, Status, overall
from telegram_stack.api.operation import Operation
from telegram_stack.events import utc_now
from telegram_stack.observability.http import metrics_response

NAME = "telegram-gateway-api"


class Info(msgspec.Struct):
    """The service and where to begin."""

    service: str
    version: str
    status: str
    timestamp: datetime
    endpoints: dict[str, str]


class Report(msgspec.Struct, rename="camel"):
    """The health of the API and of what it stands on."""

    status: Status
    service: str
    version: str
    timestamp: datetime
    uptime_seconds: int
    components: dict[str, Component]


class Service:
    """The paths that need no token."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._started = time.monotonic()

    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return (
            Operation(method="GET", path="/", endpoint=self.info, summary="What runs here", scope=None, answer=Info),
            Operation(
                method="GET",
                path="/health",
                endpoint=self.health,
                summary="The health of the API and of what it stands on; 503 with the same body when unhealthy",
                scope=None,
                answer=Report,
                others={503: Report},
            ),
            Operation(
                method="GET",
                path="/metrics",
                endpoint=self.metrics,
                summary="Figures for Prometheus",
                scope=None,
                media=("text/plain",),
            ),
        )

    async def info(self, _request: Request) -> Response:
        """What runs here."""
        endpoints = {
            "health": "/health",
            "metrics": "/metrics",
            "messages": "/api/messages",
            "channels": "/api/channels",
            "docs": "/docs",
            "openapi": "/openapi.json",
        }
        return json(Info(NAME, program.version(), "running", utc_now(), endpoints))

    async def health(self, _request: Request) -> Response:
        """503 when unhealthy; degraded is 200."""
        components = await self._health.components()
        status = overall(components)
        uptime = round(time.monotonic() - self._started)
        report = Report(status, NAME, program.version(), utc_now(), uptime, components)
        return json(report, 503 if status == "unhealthy" else 200)

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        return metrics_response()
