"""``telegram-signal-worker replay``: what was given up is done again, straight from ``telegram.failures``.

Effect, marker and ``replayed_at`` commit in one transaction for each failure, so a replay that is killed, or two at
once, repeat nothing. What fails again is a new failure, with one attempt more.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import psycopg

from telegram_stack import program
from telegram_stack.config import ConfigError, load
from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, open_pool, transaction
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.config import WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import Handler, UnknownHandlerError, load_handler
from telegram_stack.worker.processing import Processor

_NAME = "telegram-signal-worker"
_CREDENTIALS = f"/etc/telegram-stack/credentials/{_NAME}"

Result = Literal["done", "superseded", "failed again", "unreadable", "refused", "taken"]

_WAITING = """
SELECT id, channel_id, message_id, attempts, created_at, reason FROM telegram.failures
WHERE consumer = %s AND replayed_at IS NULL AND (%s = '' OR strpos(lower(reason), lower(%s)) > 0)
ORDER BY id LIMIT %s
"""

_TAKE = """
SELECT f.channel_id, f.payload, greatest(f.attempts, p.attempts) FROM telegram.failures AS f
LEFT JOIN telegram.processing AS p
  ON p.consumer = f.consumer AND p.channel_id = f.channel_id AND p.message_id = f.message_id
WHERE f.id = %s AND f.replayed_at IS NULL
FOR UPDATE OF f SKIP LOCKED
"""

_FOR_AN_OPERATOR = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.ProgrammingError)

_REPLAYED = "UPDATE telegram.failures SET replayed_at = clock_timestamp() WHERE id = %s"


def main(arguments: Sequence[str]) -> int:
    """Run the command: 0 when everything was done, 1 when something was not, 2 for a bad config."""
    parser = argparse.ArgumentParser(prog=_NAME, description="Do again what was given up, from telegram.failures.")
    parser.add_argument("command", choices=["replay"])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the worker's TOML file")
    parser.add_argument("--consumer", help="whose failures (default: the config's); handled by the config's handler")
    parser.add_argument("--reason", default="", metavar="TEXT", help="only failures whose reason contains TEXT")
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="at most N, the oldest first (default: 1000)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list them")
    options = parser.parse_args(arguments)
    if options.limit < 1:
        parser.error("--limit has to be 1 or more")
    os.environ.setdefault("CREDENTIALS_DIRECTORY", _CREDENTIALS)
    try:
        config = load(options.config, WorkerConfig)
        replay = Replay(config, load_handler(config.handler, config.handler_path), options.consumer or config.consumer)
        return asyncio.run(replay.run(options.reason, options.limit, dry_run=options.dry_run))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return program.BAD_CONFIG
    except UnknownHandlerError as error:
        sys.stderr.write(f"{options.config}: {error}\n")
        return program.BAD_CONFIG
    except (DatabaseUnavailableError, psycopg.Error) as error:
        sys.stderr.write(f"the database: {error}\nWhat was replayed is marked; run the same command again.\n")
        return program.FAILED


class Replay:
    """Failures of one consumer, done again one by one."""

    def __init__(self, config: WorkerConfig, handler: Handler, consumer: str) -> None:
        self._config = config
        self._handler = handler
        self._consumer = consumer

    async def run(self, reason: str, limit: int, *, dry_run: bool) -> int:
        """Replay and report; returns the exit code. Raises DatabaseUnavailableError."""
        pool = await open_pool(self._config.database, f"{_NAME} replay")
        results: Counter[str] = Counter()
        try:
            waiting = await _waiting(pool, self._consumer, reason, limit)
            processor = Processor(pool, self._handler, Filter(self._config.filter), self._consumer)
            for number, channel_id, message_id, attempts, created_at, why in waiting:
                result = "waiting" if dry_run else await self._one(pool, processor, number)
                results[result] += 1
                key = f"{channel_id} {message_id}"
                sys.stdout.write(
                    f"{number} {key} {created_at:%Y-%m-%dT%H:%M:%SZ} attempts={attempts} {result}: {why}\n"
                )
        finally:
            await pool.close(timeout=2)
        told = ", ".join(f"{count} {result}" for result, count in sorted(results.items())) or "nothing to do"
        sys.stdout.write(f"consumer {self._consumer}: {told}\n")
        return program.FAILED if results.keys() & {"failed again", "unreadable", "refused"} else program.OK

    async def _one(self, pool: Pool, processor: Processor, number: int) -> Result:
        async def work(connection: Connection) -> Result:
            found = await (await connection.execute(_TAKE, [number])).fetchone()
            if found is None:
                return "taken"  # by another replay
            channel_id, payload, attempts = found
            decision = processor.decide([Delivery(0, _body(payload), attempts + 1, {"x-channel-id": channel_id})])
            if decision.poison:
                return "unreadable"
            outcome = await processor.commit(connection, decision)
            await connection.execute(_REPLAYED, [number])
            if not outcome.marks:
                return "superseded"
            return "failed again" if outcome.marks[0].status == "failed" else "done"

        try:
            return await transaction(pool, work)
        except (DatabaseUnavailableError, *_FOR_AN_OPERATOR):
            raise
        except Exception:  # what the handler or its data does wrong: the failure goes on waiting
            return "refused"


async def _waiting(pool: Pool, consumer: str, reason: str, limit: int) -> list[tuple[Any, ...]]:
    async def work(connection: Connection) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(_WAITING, [consumer, reason, reason, limit])
        return await cursor.fetchall()

    return await transaction(pool, work)


def _body(payload: Any) -> bytes:
    """The delivery's bytes, as the worker recorded them."""
    if isinstance(payload, dict) and payload.keys() == {"base64"}:
        return base64.b64decode(payload["base64"])
    return msgspec.json.encode(payload)
