"""usage: python -m benchmarks.migration [--messages N] [--rate R] [--soak SECONDS] [--keep]

Moves a legacy system on a Debian 12 host to the stack on a Debian 13 host while messages are posted, and goes back
after ten minutes: how long copy and comparison take and what they do to the old database's inserts, how long
no messages are taken, how long the way back is, and how long it takes to restore the new side's backup to a third,
bare host. A run of the full size is written to docs/benchmarks-migration.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

from benchmarks.database.__main__ import commit, say
from benchmarks.database.report import machine
from benchmarks.database.timing import Timings
from benchmarks.migration import databases, hosts

FULL = 300_000
CALM = 60.0
"""Seconds in which the old database's inserts are measured before anything else happens."""
_BACK = re.compile(r"serves again since (\d+) s")
_PAGE = """\
# Figures of a migration

Written by `make benchmark-migration`; do not edit. {messages:,} messages in 40 channels on a Debian 12 host, moved to
the stack on a Debian 13 host of the same machine under {rate:g} messages a second with edits and deletions, back after
{soak:g} s, and the new side's backup restored to a third host, where it is compared table by table.
{date}, commit {commit}.

{table}

{facts}
"""


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.migration", description=__doc__)
    parser.add_argument("--messages", type=int, default=FULL, help="in the old database (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="messages a second meanwhile (default: %(default)g)")
    parser.add_argument("--soak", type=float, default=600, help="seconds before the way back (default: %(default)g)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts running")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        rows = databases.measure() if options.messages == FULL else []
        rows += measure(options.messages, options.rate, options.soak)
    finally:
        if not options.keep:
            hosts.unmake()
    for name, value, bar in rows:
        print(f"{name:48}  {value:>24}  {bar}")
    if options.messages == FULL:
        lines = ["| | measured | bar |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)]
        facts = machine({"load": f"{before:.1f} before the run"})
        page = hosts.ROOT / "docs" / "benchmarks-migration.md"
        page.write_text(
            _PAGE.format(
                messages=options.messages, rate=options.rate, soak=options.soak,
                date=datetime.now(UTC).date(), commit=commit(),
                table="\n".join(lines), facts="\n".join(f"* {name}: {value}" for name, value in facts.items()),
            )
        )  # fmt: skip
        print(f"written to {page.relative_to(hosts.ROOT)}")
    return 0


def measure(messages: int, rate: float, soak: float) -> list[tuple[str, str, str]]:
    """The rows of the table: what, its value, its bar."""
    say(f"a legacy system with {messages:,} messages on one host, and a bare host")
    telegram = hosts.make(messages)
    since = time.time()
    telegram.ask("POST", "/load", {"rate": rate, "edit_every": 10, "delete_every": 15})
    hosts.insert_on_old()
    time.sleep(CALM)
    say("migrates")
    hosts.play("migrate.yml", "-e", "migration_confirm=true")
    phases = hosts.state()["phases"]
    inserts = hosts.inserted()
    say(f"lets the new side take messages for {soak:g} s")
    time.sleep(soak)
    # Of what is deleted while neither side runs the old gateway learns nothing.
    telegram.ask("DELETE", "/load")
    new = hosts.compare("new", telegram.control, since)
    telegram.ask("POST", "/load", {"rate": rate, "edit_every": 10, "delete_every": 0})
    say("goes back")
    back = _BACK.search(hosts.play("rollback.yml"))
    time.sleep(10)
    telegram.ask("DELETE", "/load")
    old = hosts.compare("old", telegram.control, since)
    say("restores the new side's backup to a bare host")
    hosts.play("playbooks/backup.yml")
    hosts.move_backup()
    begun = time.time()
    # The session went back: without one the gateway is not well, and nothing else may be wrong.
    hosts.play("playbooks/restore.yml", "-e", "health_fail_on=failed")
    restored, serving = time.time() - begun, hosts.restored_since() - begun
    copied, verified = took(phases, 4), took(phases, 6)
    calm = p95(inserts, since, since + CALM)
    busy = p95(inserts, moment(phases["4"]["begun_at"]), moment(phases["6"]["finished_at"]))
    fifth = took(phases, 5)
    return [
        ("copy (phase 4)", f"{copied:.1f} s", ""),
        ("delta (phase 5)", f"{fifth:.1f} s", ""),
        ("comparison (phase 6)", f"{verified:.1f} s", ""),
        ("copy and comparison, beside two whole stacks", f"{copied + verified:.1f} s", ""),
        ("p95 of the old database's inserts, before", f"{calm:.1f} ms", ""),
        ("the same during phases 4 to 6", f"{busy:.1f} ms", f"<= {2 * calm:.1f} ms"),
        ("fence (phase 7)", f"{took(phases, 7):.1f} s", ""),
        ("final delta (phase 8)", f"{took(phases, 8):.1f} s", ""),
        ("cut-over (phase 9)", f"{took(phases, 9):.1f} s", ""),
        ("no messages taken", f"{phases['9']['evidence']['downtime_seconds']:.1f} s", "<= 15 s, 30 s at worst"),
        ("way back", f"{back[1]} s" if back else "not said", "<= 60 s"),
        ("restore to a bare host, with its installation", f"{restored:.0f} s", "<= 300 s"),
        ("until its services run; backup and monitoring follow", f"{serving:.0f} s", ""),
        ("published, lost on the new side", f"{new['published']:,}, {len(new['lost'])}", "0"),
        ("published, lost on the old side after the way back", f"{old['published']:,}, {len(old['lost'])}", "0"),
    ]


def moment(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def took(phases: dict[str, Any], number: int) -> float:
    """Seconds."""
    phase = phases[str(number)]
    return moment(phase["finished_at"]) - moment(phase["begun_at"])


def p95(inserts: list[tuple[float, float]], begin: float, end: float) -> float:
    """Of the inserts that began between the two moments, in milliseconds."""
    return Timings([took / 1000 for begun, took in inserts if begin <= begun <= end]).p95_ms


if __name__ == "__main__":
    sys.exit(main())
