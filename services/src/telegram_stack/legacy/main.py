"""telegram-legacy-feed: what happens here goes back to the legacy database, until there is no way back to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from telegram_stack import program
from telegram_stack.database import DatabaseUnavailableError, open_pool
from telegram_stack.legacy import commands
from telegram_stack.legacy.config import FeedConfig
from telegram_stack.legacy.feed import DATABASE, LEGACY, Feed
from telegram_stack.legacy.old_side import OldSide, RefusedError, open_old_side
from telegram_stack.legacy.outbox import Outbox
from telegram_stack.observability.http import health_and_metrics

_NAME = "telegram-legacy-feed"
_LATE_SECONDS = 60


def main() -> int:
    """Run the feed, or one of its commands."""
    if {"drain", "compare"} & set(sys.argv[1:]):
        return commands.main(_NAME, sides, sys.argv[1:])
    return program.main(_NAME, FeedConfig, run)


@asynccontextmanager
async def sides(config: FeedConfig) -> AsyncIterator[tuple[Outbox, OldSide]]:
    """Both databases, connected in the background. Raises ConfigError when a secret cannot be read."""
    ours = await open_pool(config.database, _NAME)
    try:
        theirs, old_side = await open_old_side(config.legacy, config.consumer, _NAME)
        try:
            yield Outbox(ours), old_side
        finally:
            await theirs.close(timeout=2)
    finally:
        await ours.close(timeout=2)


async def run(config: FeedConfig, stop: asyncio.Event) -> None:
    """Feed until `stop`, then finish the batch within `stop_seconds`."""
    async with sides(config) as (outbox, old_side):
        feed = Feed(outbox, old_side, config.batch_size)
        app = health_and_metrics(lambda: state(feed, old_side))
        address = (config.bind_address, config.port)
        await program.work(feed.run(stop, config.poll_seconds), app, address, stop, config.stop_seconds)


async def state(feed: Feed, old_side: OldSide) -> dict[str, Any]:
    """What ``/health`` answers: unhealthy while nothing can be fed, degraded while it comes late."""
    reasons: dict[str, str | None] = {DATABASE: None, LEGACY: feed.progress.refusal}
    backlog: dict[str, Any] = {"backlog": None, "age_seconds": None, "since": None}
    late = False
    try:
        found = await feed.state()
    except DatabaseUnavailableError as error:
        reasons[DATABASE] = str(error)
    else:
        backlog = {"backlog": found.backlog, "age_seconds": round(found.age, 3), "since": found.since}
        late = found.age > _LATE_SECONDS
    try:
        await feed.progress.asked(LEGACY, old_side.ping())
    except (DatabaseUnavailableError, RefusedError) as error:
        reasons[LEGACY] = str(error)
    return {
        "status": "unhealthy" if any(reasons.values()) else "degraded" if late else "healthy",
        "service": _NAME,
        "version": program.version(),
        **backlog,
        "components": {
            side: {"status": "unhealthy", "reason": reason} if reason else {"status": "healthy"}
            for side, reason in reasons.items()
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
