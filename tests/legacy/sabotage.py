"""Runs migrate.yml against what goes wrong: it stops at the gate meant for that, and the old system serves on.

    python -m tests.legacy.sabotage --inventory .cache/molecule/inventory CASE …

Each case goes on from where the one before has stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.legacy.run import ROOT, Run

_OLD_SERVER = "$(systemctl list-units --plain --no-legend --all 'postgresql@*-legacy.service' | cut -d' ' -f1)"
_OLD_SYSTEM = (
    "systemctl is-active legacy-gateway.service legacy-api.service legacy-consumer.service && "
    "! systemctl is-active telegram-gateway.service && "
    """python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:4006/health", timeout=10)'"""
)
_DROP_IN = "/run/systemd/system/telegram-gateway.service.d"
_SMALL_DISK = "/var/lib/telegram-backup"
_FIRST = (
    "WITH first AS (SELECT channel_id, message_id FROM telegram.legacy_ids JOIN telegram.messages"
    " USING (channel_id, message_id) WHERE deleted_at IS NULL AND text <> '' ORDER BY message_date LIMIT 1)"
)


def _new_database(statement: str) -> str:
    """A shell command; `first` is the oldest message with a text. No trigger of ours sees what it does."""
    sql = f"SET session_replication_role = replica; {_FIRST} {statement}"
    return f'runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -p 5434 -d telegram_gateway -c "{sql}"'


@dataclass(frozen=True)
class Case:
    """Patterns that the run's last words have to match, and shell commands on the host: before, at tasks, after."""

    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    before: str = "true"
    at: Mapping[str, str] = field(default_factory=dict)
    after: str = "true"


CASES = {
    "wrong-password": Case(
        (r"Phase 0 \(preflight\) stopped", "password authentication failed"),
        options=("-e", "migration_source_password=guessed"),
    ),
    "other-inputs": Case(
        ("source_db was 'tradingsystem', is 'another'",),
        options=("-e", "migration_source_db=another"),
    ),
    "disk-full": Case(
        (r"Phase 1 \(backup\) stopped", "archive legacy", "No space left|MB are free"),
        before=f"mkdir -p {_SMALL_DISK} && mount -t tmpfs -o size=1m,mode=0711 none {_SMALL_DISK}",
        after=f"umount {_SMALL_DISK}",
    ),
    "lost-row": Case(
        (r"Phase 6 \(verification\) stopped", r"\d lacking"),
        at={
            "Compare from the first window on": _new_database(
                "DELETE FROM telegram.messages USING first "
                "WHERE (messages.channel_id, messages.message_id) = (first.channel_id, first.message_id)"
            )
        },
    ),
    "other-text": Case(
        (r"Phase 6 \(verification\) stopped", r"\d differing"),
        at={
            "Compare from the first window on": _new_database(
                "UPDATE telegram.messages SET text = 'other' FROM first "
                "WHERE (messages.channel_id, messages.message_id) = (first.channel_id, first.message_id)"
            )
        },
    ),
    "lost-chunk": Case(
        (r"Phase 6 \(verification\) stopped", r"\d\d+ lacking"),
        at={
            # A chunk or a partition, whichever the engine has: all that lies in the oldest one's table.
            "Compare from the first window on": _new_database(
                "DELETE FROM telegram.messages USING first JOIN telegram.messages oldest USING (channel_id, message_id)"
                " WHERE messages.tableoid = oldest.tableoid"
            )
        },
    ),
    "old-database-away": Case(
        (r"Phase 8 \(final delta\) stopped", "annot connect|annot be reached|refused"),
        # It comes back while the run tries to let writes in again.
        at={
            "Copy and compare the last messages": f"server={_OLD_SERVER}; systemctl stop $server && "
            "systemd-run --quiet --on-active=15 systemctl start $server"
        },
    ),
    "new-gateway-broken": Case(
        (r"Phase 9 \(cut-over\) stopped",),
        at={
            "Give the session to the new gateway and start it": f"mkdir -p {_DROP_IN} && "
            f"printf '[Service]\\nExecStartPre=/bin/false\\n' > {_DROP_IN}/broken.conf && systemctl daemon-reload"
        },
        after=f"rm -r {_DROP_IN} && systemctl daemon-reload",
    ),
}


class FailedError(Exception):
    """A case did not go as it must."""


def on_host(inventory: str, command: str) -> None:
    """Run the shell command on the legacy host as root. Raises FailedError with what it said."""
    words = ["ansible", "telegram_gateway", "-i", inventory, "-b", "-m", "ansible.builtin.shell", "-a", command]
    own = os.environ | {"ANSIBLE_SSH_ARGS": "-o ControlPath=none"}  # a connection of the run is held with it
    done = subprocess.run(words, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{command}\n{done.stdout}{done.stderr}")


def sabotage(inventory: str, case: Case) -> None:
    """One run against `case`. Raises FailedError."""
    on_host(inventory, case.before)
    run, at = Run(inventory, *case.options), dict(case.at)
    try:
        while task := run.until(at):
            with run.held():
                on_host(inventory, at.pop(task))
        code, said = run.end(), "".join(run.said[-80:])
    except FailedError:
        run.kill()
        raise
    finally:
        on_host(inventory, case.after)
    if at:
        raise FailedError(f"never came to: {', '.join(at)}\n{said}")
    missing = [word for word in case.words if not re.search(word, said)]
    if not code or missing:
        raise FailedError(f"exit code {code}; not said: {', '.join(missing) or 'nothing'}\n{said}")
    on_host(inventory, _OLD_SYSTEM)


def second_operator(inventory: str) -> None:
    """While a run is in its first phase another one begins, which is refused. Raises FailedError."""
    first = Run(inventory)
    first.until(["Do the work of phase 0"])
    try:
        with first.held():
            sabotage(inventory, Case((r"process \d+.*migration_take_over=true",)))
    finally:
        first.kill()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("cases", nargs="+", metavar="CASE", choices=[*CASES, "second-operator"])
    given = parser.parse_args()
    for name in given.cases:
        try:
            second_operator(given.inventory) if name == "second-operator" else sabotage(given.inventory, CASES[name])
        except FailedError as error:
            raise SystemExit(f"{name}: {error}") from error
        print(f"refused as it must: {name}", flush=True)


if __name__ == "__main__":
    main()
