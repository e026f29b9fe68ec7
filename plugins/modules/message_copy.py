#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: messages of the legacy table into the stack's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: message_copy
short_description: Copies messages of the legacy system, window by window
version_added: 0.1.0
description:
  - Reads the legacy table of messages, of whichever shape, and takes its rows over by the database's function
    C(telegram.adopt_legacy_rows). Duplicates become one message, what is no message goes to C(telegram.quarantine)
    with the reason.
  - A window is 10,000 numbers of a plain table, or of a hypertable a day, an hour or a minute, so that it has 10,000
    rows at most where that can be. Windows are committed, as many as have 10,000 rows together, with their rows in
    C(telegram.copied_windows), so that a copy which was killed goes on with the next one.
  - One run works for about O(seconds), so that nothing depends on one long connection and each run can tell how far
    it is. Run it again until RV(complete).
  - A further run finds the windows that have changed at the source by checksums of the source's rows, and of those
    reads and takes over the rows that have changed. To copy a window twice changes nothing. So this is the delta pass
    too.
  - The source is read in read-only transactions, one window each, and nothing in it is changed or locked.
options:
  rows_per_second:
    description:
      - How many rows are read from the source in a second at most, to spare a legacy system that is still in use;
        V(0) for as fast as it goes.
    type: int
    default: 0
  lock_timeout:
    description:
      - Seconds to wait for another run that copies into this database. One whose controller was killed goes on for as
        long as its O(seconds).
    type: int
    default: 120
  verify:
    description:
      - Compare the rows of a window with what became of them, as M(tradingsystem.telegram_stack.message_verify) does,
        before the window is committed. A difference ends the run.
    type: bool
    default: false
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
  - tradingsystem.telegram_stack.legacy_source
  - tradingsystem.telegram_stack.legacy_source.connection
attributes:
  check_mode:
    description: Copies nothing and tells what there is to copy.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: A run after RV(complete) copies nothing while the source stays as it is.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Copy the messages of the legacy system
  tradingsystem.telegram_stack.message_copy:
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
    rows_per_second: 20000
  register: copied
  until: copied.complete
  retries: 1000
  delay: 0
"""

RETURN = r"""
complete:
  description: Whether all that the source had when the run began is here.
  returned: success
  type: bool
  sample: true
windows:
  description: How many windows the source has, were copied by this run, and are left.
  returned: success
  type: dict
  sample: {all: 120, copied: 30, left: 60}
rows:
  description: How many rows the source has, were read by this run, and are left.
  returned: success
  type: dict
  sample: {all: 300000, copied: 75000, left: 150000}
counts:
  description:
    - What became of the rows of this run, without those that have not changed since they were copied. C(undated) had no
      date of Telegram and got that of their receipt; C(duplicates) are rows of a message that another row has told of;
      C(written) messages are new or changed.
  returned: success
  type: dict
  sample: {given: 75000, quarantined: 3, undated: 12, duplicates: 666, written: 74319, processed: 70000, deleted: 20}
rows_per_second:
  description: How fast this run was.
  returned: when it copied
  type: int
  sample: 21000
seconds_left:
  description: How long the rest takes at this pace.
  returned: when it copied
  type: int
  sample: 7
unread_columns:
  description: Columns of the source that are not taken over, because no legacy system is known to have them.
  returned: success
  type: list
  elements: str
  sample: []
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_source import (
    ROWS_PER_WINDOW,
    source_argument_spec,
)
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_windows import (
    Changed,
    LegacyError,
    LegacyTable,
    Window,
    begun_within,
    bring,
    copied,
    copied_rows,
    differing,
    prepare,
    read_ahead,
    verdict,
    with_legacy_table,
)
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.postgresql import (
    connection_argument_spec,
    server_words,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg

COUNTS = ("given", "quarantined", "undated", "duplicates", "written", "processed", "deleted")
LOCK = 1668246648
"""Of the advisory locks of the stack's database: who copies."""

_RECORD = (
    "INSERT INTO telegram.copied_windows (source, window_start, rows, checksum, row_checksums)"
    " VALUES (%s, %s, %s, %s, %s::text::bigint[])"
    " ON CONFLICT (source, window_start) DO UPDATE SET rows = excluded.rows, checksum = excluded.checksum,"
    " row_checksums = excluded.row_checksums, copied_at = now()"
)
_FORGET = "DELETE FROM telegram.copied_windows WHERE source = %s AND window_start <> ALL (%s)"
_ANALYSE = "ANALYZE telegram.message_keys, telegram.processing, telegram.legacy_ids"


class Copy:
    """One run."""

    def __init__(self, module: AnsibleModule, table: LegacyTable, target: psycopg.Connection[Any]) -> None:
        self._params = module.params
        self._check_mode = module.check_mode
        self._table = table
        self._target = target
        self._counts = dict.fromkeys(COUNTS, 0)

    def run(self) -> dict[str, Any]:
        """Copy until the time is up. Raises LegacyError and psycopg.Error."""
        if not self._check_mode:
            self._alone()
            prepare(self._target)
        windows = self._table.windows()
        if not self._check_mode:  # a day with many rows by now is told by its hours
            self._target.execute(_FORGET, [self._table.name, [window.start for window in windows]])
        known = copied(self._table, self._target)
        waiting = [window for window in windows if known.get(window.start) != window.checksum]
        here = sum(window.rows for window in windows if window.start in known)
        done, seconds = ([], 0.0) if self._check_mode else self._work(waiting, here)
        return self._told(windows, waiting, done, seconds)

    def _alone(self) -> None:
        """Wait until nobody else copies. Raises LegacyError."""
        self._target.execute("SELECT set_config('lock_timeout', %s, false)", [f"{self._params['lock_timeout']}s"])
        try:
            self._target.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        except psycopg.errors.LockNotAvailable as error:
            query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
            (pid,) = self._target.execute(query, [LOCK]).fetchone() or ("unknown",)
            raise LegacyError(
                f"Another run (process {pid} of the server) has been copying into this database for "
                f"{self._params['lock_timeout']} s. Wait for it, or end it there: SELECT pg_terminate_backend({pid})"
            ) from error
        self._target.execute("RESET lock_timeout")

    def _work(self, waiting: list[Window], here: int) -> tuple[list[Window], float]:
        begun = time.monotonic()
        done: list[Window] = []
        rows, analysed = 0, here
        left = begun_within(self._params["seconds"], waiting)
        reads = ((window, self._reading(window)) for window in left)
        with contextlib.closing(read_ahead(reads)) as found:
            while batch := self._copy(found):
                done += batch
                rows += sum(window.rows for window in batch)
                grown = here + self._counts["given"]
                if grown >= 2 * analysed:  # plans that were right for empty tables read them whole when they have grown
                    self._target.execute(_ANALYSE)
                    analysed = grown
                if self._params["rows_per_second"]:
                    time.sleep(max(0.0, begun + rows / self._params["rows_per_second"] - time.monotonic()))
        return done, time.monotonic() - begun

    def _reading(self, window: Window) -> Callable[[], Changed]:
        return partial(self._table.changed_rows, window, copied_rows(self._table, window, self._target))

    def _copy(self, found: Iterator[tuple[Window, Future[Changed]]]) -> list[Window]:
        """As many windows as bring rows enough for one statement to be worth it, with their records: all or none."""
        batch: list[Window] = []
        brought = 0
        try:
            with self._target.transaction():
                for window, read in found:
                    batch.append(window)
                    changed = read.result()
                    self._bring(window, changed)
                    brought += changed.number
                    if brought >= ROWS_PER_WINDOW:
                        break
                if brought:
                    self._adopt()
        except psycopg.Error as error:
            raise LegacyError(
                f"Windows {batch[0].start} to {batch[-1].start} of {self._table.name} were not copied: "
                f"{server_words(error).rstrip('.')}. What was copied before stays; mend the cause and run again."
            ) from error
        return batch

    def _bring(self, window: Window, changed: Changed) -> None:
        """Bring the rows that have changed, and note that the window is here."""
        if changed.number:
            bring(changed.rows, self._target)
        checksums = f"{{{changed.checksums}}}"
        self._target.execute(_RECORD, [self._table.name, window.start, window.rows, window.checksum, checksums])

    def _adopt(self) -> None:
        """Take over what was brought."""
        counts = self._target.execute("SELECT * FROM telegram.adopt_legacy_rows(%s)", [self._table.name]).fetchone()
        for name, count in zip(COUNTS, counts or (), strict=True):
            self._counts[name] += count
        if self._params["verify"] and (differences := differing(self._table, self._target)):
            raise LegacyError(verdict(differences))

    def _told(self, windows: list[Window], waiting: list[Window], done: list[Window], seconds: float) -> dict[str, Any]:
        rows, needed, copied = (sum(window.rows for window in some) for some in (windows, waiting, done))
        told = {
            "changed": bool(waiting) if self._check_mode else bool(done),
            "complete": len(done) == len(waiting),
            "windows": {"all": len(windows), "copied": len(done), "left": len(waiting) - len(done)},
            "rows": {"all": rows, "copied": copied, "left": needed - copied},
            "counts": self._counts,
            "unread_columns": list(self._table.shape.unread),
        }
        if copied and seconds:
            told["rows_per_second"] = round(copied / seconds)
            told["seconds_left"] = round((needed - copied) * seconds / copied)
        return told


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            **source_argument_spec(),
            "rows_per_second": {"type": "int", "default": 0},
            "lock_timeout": {"type": "int", "default": 120},
            "verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(**with_legacy_table(module, "The copy", lambda *given: Copy(*given).run()))


if __name__ == "__main__":
    main()
