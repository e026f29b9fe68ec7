"""telegram-signal-worker: from the queue to committed signals."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from telegram_stack import program
from telegram_stack.config import read_secret
from telegram_stack.database import DatabaseUnavailableError, Pool, open_pool, ping
from telegram_stack.observability.http import metrics_response, serve
from telegram_stack.observability.systemd import notify, watchdog
from telegram_stack.worker.broker import subscribe
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import UnknownHandlerError, load_handler
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.service import Worker

if TYPE_CHECKING:
    from starlette.requests import Request

_log = logging.getLogger(__name__)
_NAME = "telegram-signal-worker"


def main() -> int:
    """Run the worker."""
    return program.main(_NAME, WorkerConfig, run, check)


def check(config: WorkerConfig) -> list[str]:
    """What is wrong with `config` beyond its types."""
    try:
        load_handler(config.handler)
    except UnknownHandlerError as error:
        return [str(error)]
    return []


async def run(config: WorkerConfig, stop: asyncio.Event) -> None:
    """Work until `stop`, then finish within `stop_seconds`."""
    password = read_secret(config.queue.password_file)
    pool = await open_pool(config.database, _NAME)
    processor = Processor(pool, load_handler(config.handler), Filter(config.filter), config.consumer)
    worker = Worker(config, processor, lambda: subscribe(config.queue, password, config.consumer))
    work = asyncio.create_task(worker.run(stop), name="worker")
    http = asyncio.create_task(
        serve(application(worker, pool, config), config.bind_address, config.metrics_port, lambda _port: _ready()),
        name="http",
    )
    dog = asyncio.create_task(watchdog(lambda: not work.done()), name="watchdog")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({work, http, stopping}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        if http.done() and not stop.is_set():
            await http
        _, unfinished = await asyncio.wait({work}, timeout=config.stop_seconds)
        if unfinished:
            _log.warning("not finished within %g s: what is left goes back to the queue", config.stop_seconds)
        else:
            await work
            _log.info("stopped")
    finally:
        for task in (work, http, dog, stopping):
            task.cancel()
        await asyncio.gather(work, http, dog, stopping, return_exceptions=True)
        await pool.close(timeout=2)


def application(worker: Worker, pool: Pool, config: WorkerConfig) -> Starlette:
    """``/health`` and ``/metrics``."""

    async def health(_request: Request) -> Response:
        try:
            await ping(pool)
            database = worker.database.reason if worker.database.reason != "not yet connected" else None
        except DatabaseUnavailableError as error:
            database = str(error)
        components = {
            name: {"status": "unhealthy", "reason": reason} if reason else {"status": "healthy"}
            for name, reason in (("database", database), ("queue", worker.queue.reason))
        }
        healthy = all(component["status"] == "healthy" for component in components.values())
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "service": _NAME,
            "version": program.version(),
            "mode": config.mode,
            "consumer": config.consumer,
            "components": components,
        }
        return Response(msgspec.json.encode(body), 200 if healthy else 503, media_type="application/json")

    async def metrics(_request: Request) -> Response:
        return metrics_response()

    return Starlette(routes=[Route("/health", health), Route("/metrics", metrics)])


def _ready() -> None:
    notify("READY=1")
    _log.info("ready")


if __name__ == "__main__":
    raise SystemExit(main())
