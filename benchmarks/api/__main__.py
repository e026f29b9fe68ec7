"""usage: python -m benchmarks.api [--rows N] [--seconds S]

The newest 50 messages of a channel over HTTP, ours and the legacy API, on the same messages: inside the API's limit of
0.5 core, without it, and without Redis. A run of the full size is written to docs/benchmarks-api.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.integration.brokers import redis_with_sentinel
from tests.integration.poolers import pgbouncer
from tests.integration.servers import Postgres, postgres

from benchmarks.api import programs, report
from benchmarks.api.load import ask
from benchmarks.api.report import Row
from benchmarks.database.__main__ import ROOT, commit, role_settings, say
from benchmarks.database.data import channel_ids, messages
from benchmarks.database.ours import Ours
from benchmarks.database.report import machine

FULL, CHANNELS = 1_000_000, 200
CORES = 0.5
LEGACY_RATE = 5.0
"""It answers no more; at the rates of ours it would only fall behind."""
_LEGACY_TABLE = """
CREATE SCHEMA telegram_gateway;
CREATE TABLE telegram_gateway.messages (
  id bigserial PRIMARY KEY, channel_id bigint NOT NULL, message_id text NOT NULL, source text NOT NULL,
  text text, caption text, status text NOT NULL DEFAULT 'received', metadata jsonb NOT NULL DEFAULT '{}',
  received_at timestamptz NOT NULL, telegram_date timestamptz, deleted_at timestamptz
);
CREATE INDEX ON telegram_gateway.messages (channel_id, message_id);
CREATE INDEX ON telegram_gateway.messages (received_at DESC)
"""
_LEGACY_FILL = "COPY telegram_gateway.messages (channel_id, message_id, source, text, received_at, telegram_date)"


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL, help="messages (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each rate (default: %(default)g)")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with postgres(**role_settings()) as server, tempfile.TemporaryDirectory(prefix="telegram-benchmark-") as name:
        rows = list(measure(server, Path(name), options.rows, options.seconds))
    print(report.text(rows))
    if options.rows == FULL:
        facts = machine({"load": f"{before:.1f} before the run"})
        run = f"{options.rows:,} messages in {CHANNELS} channels, {options.seconds:g} s a rate"
        page = ROOT / "docs" / "benchmarks-api.md"
        page.write_text(report.markdown(rows, facts, f"{run}, {datetime.now(UTC).date()}, commit {commit()}"))
        print(f"written to {page.relative_to(ROOT)}")
    return 0


def measure(server: Postgres, folder: Path, rows: int, seconds: float) -> Iterator[Row]:
    """One row a situation."""
    end = datetime.now(UTC)
    channels = channel_ids(CHANNELS)
    say(f"fills both schemas with {rows:,} messages")
    with server.connect() as connection:
        own = Ours(connection)
        own.load(messages(rows, CHANNELS, end))
        own.settle(end - timedelta(hours=1))
    database = fill_legacy(server, rows, end)

    def run(program: programs.Program, name: str, rate: float, bar: str = "") -> Row:
        say(f"{name}: {rate:g} requests/s for {seconds:g} s")
        ask(program.port, min(rate, 50), 3, channels)  # connections and caches as they are in use
        return Row(name, bar, ask(program.port, rate, seconds, channels))

    with programs.legacy(folder, database) as old:
        yield run(old, "legacy, no limit", LEGACY_RATE)
    with ExitStack() as stack:
        pooler = stack.enter_context(pgbouncer(server))
        cache = stack.enter_context(redis_with_sentinel(folder))
        api = stack.enter_context(programs.ours(folder, pooler, cache))
        with api.limited(CORES):
            yield run(api, "ours, 0.5 core", 200, "p99 <= 25")
        yield run(api, "ours, no limit", 500, "p99 <= 10")
        cache.stop()
        try:
            yield run(api, "ours, no limit, no Redis", 200, "p99 <= 40")
        finally:
            cache.start()


def fill_legacy(server: Postgres, rows: int, end: datetime) -> str:
    """The same messages in the legacy table, in a database of their own; its connection URL."""
    with server.connect(database="postgres") as connection:
        connection.execute("CREATE DATABASE legacy")
    with server.connect(database="legacy") as connection:
        connection.execute(_LEGACY_TABLE.encode())
        with connection.cursor().copy(f"{_LEGACY_FILL} FROM STDIN".encode()) as copy:
            for row in messages(rows, CHANNELS, end):
                copy.write_row((row.channel_id, str(row.message_id), "user_client", row.text, row.date, row.date))
        connection.execute("VACUUM (ANALYZE) telegram_gateway.messages")
        user = connection.info.user
    return f"postgresql://{user}:{server.password}@127.0.0.1:{server.port}/legacy"


if __name__ == "__main__":
    sys.exit(main())
