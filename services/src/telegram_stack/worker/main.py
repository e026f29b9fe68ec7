"""telegram-signal-worker: from queue, cache or database to committed signals."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import partial

from telegram_stack import program
from telegram_stack.cache import open_cache
from telegram_stack.config import read_secret
from telegram_stack.database import Pool, open_pool
from telegram_stack.observability.http import health_and_metrics
from telegram_stack.worker import replay
from telegram_stack.worker.broker import subscribe
from telegram_stack.worker.cache import ConsumerCache
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import UnknownHandlerError, load_handler
from telegram_stack.worker.health import Health
from telegram_stack.worker.polling import Poller
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.service import Worker
from telegram_stack.worker.state import DATABASE_UP, Link
from telegram_stack.worker.stored import Stored

_NAME = "telegram-signal-worker"


def main() -> int:
    """Run the worker, or its command."""
    if "replay" in sys.argv[1:]:
        return replay.main(sys.argv[1:])
    return program.main(_NAME, WorkerConfig, run, check)


def check(config: WorkerConfig) -> list[str]:
    """What is wrong with `config` beyond its types."""
    try:
        load_handler(config.handler, config.handler_path)
    except UnknownHandlerError as error:
        return [str(error)]
    return []


def assemble(config: WorkerConfig, pool: Pool, cache: ConsumerCache | None) -> tuple[list[Worker | Poller], Health]:
    """The loops that `mode` asks for, and what watches them. Raises ConfigError when a secret cannot be read."""
    database = Link(DATABASE_UP, "the database")
    processor = Processor(
        pool, load_handler(config.handler, config.handler_path), Filter(config.filter), config.consumer, cache
    )
    loops: list[Worker | Poller] = []
    queue = None
    if config.mode != "polling":
        password = read_secret(config.queue.password_file)
        worker = Worker(config, processor, partial(subscribe, config.queue, password, config.consumer), database)
        queue = worker.queue
        loops.append(worker)
    if config.mode != "queue":
        stored = Stored(pool, config.consumer)
        loops.append(Poller(config, processor, stored, cache=cache, database=database, queue=queue))
    return loops, Health(config, pool, database, queue, cache.client if cache else None)


async def _together(loops: Sequence[Worker | Poller], stop: asyncio.Event) -> None:
    """Until all have stopped; a defect of one ends them all."""
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop.run(stop))


async def run(config: WorkerConfig, stop: asyncio.Event) -> None:
    """Work until `stop`, then finish within `stop_seconds`."""
    pool = await open_pool(config.database, _NAME)
    cache = ConsumerCache(open_cache(config.cache), config.consumer) if config.cache else None
    loops, health = assemble(config, pool, cache)
    app = health_and_metrics(health.state)
    address = (config.bind_address, config.metrics_port)
    try:
        await program.work(_together(loops, stop), app, address, stop, config.stop_seconds)
    finally:
        await pool.close(timeout=2)
        if cache:
            await cache.client.close()


if __name__ == "__main__":
    raise SystemExit(main())
