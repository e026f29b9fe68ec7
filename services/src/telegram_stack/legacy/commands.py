"""``telegram-legacy-feed drain`` and ``compare``: the two proofs that a way back needs.

Both tell a line of JSON, and end with 0 only when it is proven.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec

from telegram_stack import program
from telegram_stack.config import ConfigError, load
from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.legacy.config import FeedConfig
from telegram_stack.legacy.feed import Feed
from telegram_stack.legacy.old_side import OldSide, RefusedError
from telegram_stack.legacy.outbox import Outbox

Sides = Callable[[FeedConfig], AbstractAsyncContextManager[tuple[Outbox, OldSide]]]

_SHOWN = 100


def main(name: str, sides: Sides, arguments: Sequence[str]) -> int:
    """Run a command: 0 when it is proven, 1 when not, 2 for a bad config."""
    parser = argparse.ArgumentParser(prog=name, description="Prove that the legacy database has what happened here.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, words in (
        ("drain", "feed what waits until nothing does; the programs that write here have to be stopped"),
        ("compare", "look for everything that changed since the feed is on in the legacy database"),
    ):
        given = commands.add_parser(command, help=words)
        given.add_argument("--config", type=Path, required=True, metavar="FILE", help="the feed's TOML file")
        if command == "drain":
            given.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="default: 60")
    options = parser.parse_args(arguments)
    os.environ.setdefault("CREDENTIALS_DIRECTORY", f"/etc/telegram-stack/credentials/{name}")
    try:
        config = load(options.config, FeedConfig)
        work = drain(config, sides, options.timeout) if options.command == "drain" else compare(config, sides)
        told = asyncio.run(work)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return program.BAD_CONFIG
    except (DatabaseUnavailableError, RefusedError) as error:
        sys.stderr.write(f"{options.command}: {error}\nNothing is proven; mend that and run the same command again.\n")
        return program.FAILED
    sys.stdout.write(f"{msgspec.json.encode(told).decode()}\n")
    return program.OK if told["proven"] else program.FAILED


async def drain(config: FeedConfig, sides: Sides, limit: float) -> dict[str, Any]:
    """Feed until the outbox is empty and nobody has a change under way; raises DatabaseUnavailableError."""
    begun = time.monotonic()
    fed = 0
    async with sides(config) as (outbox, old_side):
        feed = Feed(outbox, old_side, config.batch_size)
        while True:
            reason: str | None = "there is always something new: is everything stopped that writes here?"
            try:
                done = await feed.step()
                fed += done
                reason = feed.progress.refusal or reason
                if not done and not feed.progress.refusal and await outbox.is_empty():
                    return {"proven": True, "fed": fed, "backlog": 0, "seconds": round(time.monotonic() - begun, 3)}
            except DatabaseUnavailableError as error:
                done, reason = 0, str(error)
            if time.monotonic() - begun > limit:
                raise DatabaseUnavailableError(f"not empty within {limit:g} s: {reason}")
            if not done:
                await asyncio.sleep(0.2)


async def compare(config: FeedConfig, sides: Sides) -> dict[str, Any]:
    """Look for each message; what is wrong is counted by channel and day."""
    compared = 0
    days: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    first: list[dict[str, Any]] = []
    async with sides(config) as (outbox, old_side):
        state = await outbox.state()
        async for changes in outbox.changed(config.batch_size):
            compared += len(changes)
            for change, wrong in await old_side.compare(changes, state.last_row_id):
                document = change.document
                days[document["channel_id"], document["telegram_date"][:10]].update(wrong)
                first.append({name: document[name] for name in ("channel_id", "message_id")})
                del first[_SHOWN:]
        empty = await outbox.is_empty()
    return {
        "proven": empty and not days,
        "compared": compared,
        "since": state.since,
        "waiting": not empty,
        "differences": [
            {"channel": channel, "day": day, **counts} for (channel, day), counts in sorted(days.items())[:_SHOWN]
        ],
        "messages": first,
    }
