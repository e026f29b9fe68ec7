"""A small HTTP server inside a program that owns its signals and its event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

_GRACE_SECONDS = 3
_STUCK_SECONDS = 30


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the program decides when to stop."""

    def __init__(self, config: uvicorn.Config, started: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say on which port."""
        await super().startup(sockets=sockets)
        if sockets:
            self._on_started(sockets[0].getsockname()[1])


async def serve(app: ASGIApp, host: str, port: int, started: Callable[[int], None] = lambda _port: None) -> None:
    """Serve `app` on `host`:`port` until cancelled; running requests then have 3 s to end.

    `started` is called with the port once connections are accepted (it differs from `port` when that is 0).
    Raises OSError when the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    # Inherited by its connections: one that takes nothing for so long is gone, with what waits for it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_SECONDS * 1000)
    config = uvicorn.Config(
        app,
        loop="none",
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, started)
    with listener:
        task = asyncio.create_task(server.serve(sockets=[listener]), name=f"http-{port}")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            server.should_exit = True
            await asyncio.wait({task}, timeout=_GRACE_SECONDS + 2)
            raise


def health_and_metrics(state: Callable[[], Awaitable[dict[str, Any]]]) -> Starlette:
    """``/health``, which answers `state` and is 503 while its ``status`` is unhealthy, and ``/metrics``."""

    async def health(_request: Request) -> Response:
        body = await state()
        code = 503 if body["status"] == "unhealthy" else 200
        return Response(msgspec.json.encode(body), code, media_type="application/json")

    async def metrics(_request: Request) -> Response:
        return metrics_response()

    return Starlette(routes=[Route("/health", health), Route("/metrics", metrics)])


def metrics_response(registry: CollectorRegistry = REGISTRY) -> Response:
    """The registry in Prometheus' text format."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
