#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the legacy gateway's failure queue into the stack's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: failure_queue_import
short_description: Imports the failure queue of the legacy gateway
version_added: 0.1.0
description:
  - Without HTTP push, which is off by default, the legacy gateway appends every live message to a file, a line each.
    Some of them are missing from its table.
  - Takes the lines over as if they were rows of that table. A message that the table tells newer, or that Telegram
    itself has told here, stays as it is.
  - A line that is no message goes to C(telegram.quarantine), with its number and the reason.
  - Works in windows of 5,000 lines, each of which is committed together with its row in C(telegram.copied_windows),
    for about O(seconds) a run. Run it again until RV(complete). A window that is here already is not read again.
    Two runs at once wait for each other.
options:
  path:
    description:
      - The file, on the managed host.
    type: path
    required: true
  seconds:
    description:
      - How long one run works, at least one window.
    type: float
    default: 20
  owner:
    description:
      - Role that owns the schema and is worked as.
    type: str
    default: telegram_owner
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
attributes:
  check_mode:
    description: Imports nothing and tells what there is to import.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: A run after RV(complete) imports nothing while the file stays as it is.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Import the failure queue
  tradingsystem.telegram_stack.failure_queue_import:
    path: /opt/telegram-gateway/data/failure-queue.jsonl
  register: imported
  until: imported is failed or imported.complete
  retries: 1000
  delay: 0
"""

RETURN = r"""
complete:
  description: Whether the whole file is here.
  returned: success
  type: bool
  sample: true
lines:
  description: How many lines the file has, were read by this run, and are left.
  returned: success
  type: dict
  sample: {all: 120000, imported: 5000, left: 0}
counts:
  description:
    - What became of the lines of this run. C(broken) lines and those that name no channel, message or date are
      C(quarantined); C(told) messages are known from Telegram itself; C(written) ones are new or changed.
  returned: success
  type: dict
  sample:
    given: 4999
    told: 0
    quarantined: 2
    undated: 0
    duplicates: 4100
    written: 898
    processed: 0
    deleted: 0
    broken: 1
lines_per_second:
  description: How fast this run was.
  returned: when it imported
  type: int
  sample: 9000
"""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.failure_queue import COLUMNS, BrokenLine, Window, row, windows
from ..module_utils.postgresql import Unreachable, connect, connection_argument_spec, server_words

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTS = ("given", "told", "quarantined", "undated", "duplicates", "written", "processed", "deleted")

_ADOPT = f"SELECT {', '.join(COUNTS)} FROM telegram.adopt_queued_rows(%s)"  # noqa: S608 - names from above
_BROKEN = "SELECT telegram.quarantine_documents(%s, %s, ARRAY[%s::jsonb])"
_NUMBER = (
    "UPDATE telegram.quarantine AS q SET payload = q.payload || jsonb_build_object('line', l.line)"
    " FROM unnest(%s::text[], %s::bigint[]) AS l (id, line)"
    " WHERE q.origin = %s AND q.payload ->> 'legacy_id' = l.id AND NOT q.payload ? 'line'"
)
_RECORD = (
    "INSERT INTO telegram.copied_windows (source, window_start, rows, checksum) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (source, window_start) DO UPDATE SET rows = excluded.rows, checksum = excluded.checksum,"
    " copied_at = now()"
)


_LOCK = 1668246649
"""Of the advisory locks of the stack's database: who imports a failure queue."""


class Import:
    """One run."""

    def __init__(self, module: AnsibleModule, target: psycopg.Connection[Any]) -> None:
        self._path = module.params["path"]
        self._seconds = module.params["seconds"]
        self._check_mode = module.check_mode
        self._target = target
        self._origin = f"failure queue {self._path}"
        self._counts = dict.fromkeys((*COUNTS, "broken"), 0)
        target.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(module.params["owner"])))

    def run(self) -> dict[str, Any]:
        """Import until the time is up; what is left is counted. Raises OSError and psycopg.Error."""
        if not self._check_mode:  # the run of a playbook that was killed may still be at it
            self._target.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        query = "SELECT window_start, checksum FROM telegram.copied_windows WHERE source = %s"
        known = dict(self._target.execute(query, [self._origin]).fetchall())
        if not self._check_mode:
            self._target.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row ON COMMIT DELETE ROWS")
        begun, imported, left, lines = time.monotonic(), 0, 0, 0
        for window in windows(self._path):
            lines += len(window.lines)
            if known.get(window.start) == window.checksum:
                continue
            if self._check_mode or (imported and time.monotonic() - begun >= self._seconds):
                left += len(window.lines)
                continue
            self._import(window)
            imported += len(window.lines)
        return self._told(lines, imported, left, time.monotonic() - begun)

    def _import(self, window: Window) -> None:
        """One window and its record: both or neither."""
        with self._target.transaction():
            numbers = self._bring(window)
            counts = self._target.execute(_ADOPT, [self._origin]).fetchone() or ()
            told = dict(zip(COUNTS, counts, strict=True))
            if told["quarantined"]:
                self._target.execute(_NUMBER, [list(numbers), list(numbers.values()), self._origin])
            self._target.execute(_RECORD, [self._origin, window.start, len(window.lines), window.checksum])
        for name, count in told.items():
            self._counts[name] += count

    def _bring(self, window: Window) -> Mapping[str, int]:
        """Put the window into `legacy_rows`; returns the numbers of its lines by the ids that their rows got."""
        numbers: dict[str, int] = {}
        broken: list[tuple[int, str, bytes]] = []
        with self._target.cursor().copy(f"COPY legacy_rows ({', '.join(COLUMNS)}) FROM STDIN".encode()) as copy:
            for number, line in enumerate(window.lines, window.first):
                if not line.strip():
                    continue
                try:
                    values = row(line)
                except BrokenLine as error:
                    broken.append((number, str(error), line))
                    continue
                if numbers.setdefault(str(values[0]), number) == number:  # the same line again is the same row
                    copy.write_row(values)
        for number, reason, line in broken:
            text = line[:10_000].decode("utf-8", "replace").replace("\0", "")
            self._target.execute(_BROKEN, [self._origin, reason, json.dumps({"line": number, "text": text})])
        self._counts["broken"] += len(broken)
        return numbers

    def _told(self, lines: int, imported: int, left: int, seconds: float) -> dict[str, Any]:
        told: dict[str, Any] = {
            "changed": bool(left if self._check_mode else imported),
            "complete": not left,
            "lines": {"all": lines, "imported": imported, "left": left},
            "counts": self._counts,
        }
        if imported and seconds:
            told["lines_per_second"] = round(imported / seconds)
        return told


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "path": {"type": "path", "required": True},
            "seconds": {"type": "float", "default": 20},
            "owner": {"type": "str", "default": "telegram_owner"},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        with connect(module) as target:
            result = Import(module, target).run()
    except Unreachable as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The failure queue {path} cannot be read: {error.strerror}. Name the right file in path.")
    except psycopg.Error as error:
        said = server_words(error).rstrip(".")
        module.fail_json(
            msg=f"{path} was not imported to its end: {said} ({error.sqlstate}). What was imported before stays; "
            "mend the cause and run again."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
