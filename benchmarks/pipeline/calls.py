"""Workload ``calls``: what a worker asks again and again, one call at a time with 5 ms pauses.

    python -m benchmarks.pipeline.calls --calls 1000

Poll: 100 of 2,000 pending messages in 20 channels from the cache, decoded. Dedup: one version asked of the cache.
Status: one message's processing state through PgBouncer, until PostgreSQL has committed it (fsync and
synchronous_commit on). All run the worker's own code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from tests.integration import brokers
from tests.integration.poolers import pgbouncer
from tests.integration.servers import postgres

from benchmarks.database.timing import PAUSE, Timings
from telegram_stack import events
from telegram_stack.cache import open_cache
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.events import Content, Event
from telegram_stack.sinks.cache import CacheConfig as SinkConfig
from telegram_stack.sinks.cache import open_cache as open_sink
from telegram_stack.spool import Entry
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.cache import ConsumerCache
from telegram_stack.worker.config import CacheConfig, FilterConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.signal_handler import SignalHandler

TARGETS = {"poll of 100": 2.0, "dedup check": 0.8, "status update": 2.0}
"""Architecture, section 6: p95 in milliseconds."""
CONSUMER = "signals"
_CHANNELS, _MESSAGES, _TEXT = 20, 2000, "Bom dia a todos, o pregão de hoje abre em alta. " * 6


def main() -> None:
    """Run the workload and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="calls of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options.calls)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'ms':>14} {'p50':>7} {'p95':>7} {'p99':>7} {'target p95':>11}")
    for name, figures in found.items():
        values = " ".join(f"{figures[key]:7.2f}" for key in ("p50", "p95", "p99"))
        print(f"{name:>14} {values} {TARGETS[name]:11.1f}")


def run(calls: int = 1000) -> dict[str, dict[str, float]]:
    """Percentiles in milliseconds of each kind of call, with servers of their own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(calls))


async def measure(calls: int) -> dict[str, dict[str, float]]:
    """Percentiles in milliseconds of each kind of call."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calls-")))
        server = stack.enter_context(postgres())
        pooler = stack.enter_context(pgbouncer(server))
        redis = stack.enter_context(brokers.redis_with_sentinel(folder))
        (folder / "postgres").write_text(server.password)
        (folder / "redis").write_text(redis.password)
        sentinels = (f"127.0.0.1:{redis.sentinel_port}",)
        sink = open_sink(SinkConfig(user=brokers.USER, sentinels=sentinels), redis.password, None)
        await sink.write([Entry(n, one, events.encode(one), 0.0) for n, one in enumerate(messages(_MESSAGES))])
        await sink.close()
        # A slow call is a figure here, not a reason to ask the database.
        reading = CacheConfig(user=brokers.USER, password_file=str(folder / "redis"), sentinels=sentinels, timeout=1.0)
        client = open_cache(reading)
        cache = ConsumerCache(client, CONSUMER)
        pool = await open_pool(
            DatabaseConfig(user="telegram_worker", password_file=str(folder / "postgres"), port=pooler.port), "calls"
        )
        processor = Processor(pool, SignalHandler(), Filter(FilterConfig()), CONSUMER)
        fresh = iter(messages(calls + 50, first=_MESSAGES))

        async def poll() -> None:
            assert len((await cache.pending(100)).messages) == 100

        async def dedup() -> None:
            await cache.processed([next(asked)])

        async def status() -> None:
            one = next(fresh)
            outcomes = await processor.process([Delivery(0, b"", event=one)], ask_cache=False)
            assert outcomes[0].marks

        known = messages(_MESSAGES)
        await cache.settle([], known[::2])  # every other one is a hit
        asked = iter(known * (calls // _MESSAGES + 2))
        try:
            kinds = {"poll of 100": poll, "dedup check": dedup, "status update": status}
            return {name: percentiles(await paced(call, calls)) for name, call in kinds.items()}
        finally:
            await pool.close()
            await client.close()


def messages(count: int, first: int = 0) -> list[Event]:
    """So many messages of the last minutes, dealt out to the channels."""
    now = events.utc_now()
    return [
        Event(
            kind="new",
            channel_id=-1001000000000 - number % _CHANNELS,
            message_id=number + 1,
            version=10,
            received_at=now,
            message_date=now,
            content=Content(text=_TEXT),
        )
        for number in range(first, first + count)
    ]


async def paced(call: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    """Seconds of each call, with a pause before it; the first 50 are warm-up."""
    seconds = []
    for number in range(count + 50):
        await asyncio.sleep(PAUSE)
        begun = time.perf_counter()
        await call()
        if number >= 50:
            seconds.append(time.perf_counter() - begun)
    return seconds


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds, nearest rank."""
    timings = Timings(sorted(seconds))
    last = len(seconds) - 1
    return {
        "p50": round(timings.median_ms, 3),
        "p95": round(timings.p95_ms, 3),
        "p99": round(timings.seconds[min(last, len(seconds) * 99 // 100)] * 1000, 3),
    }


if __name__ == "__main__":
    main()
