#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: whether the messages of the legacy table are in the stack's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: message_verify
short_description: Compares messages of the legacy system with what is here
version_added: 0.1.0
description:
  - Reads the legacy table again, row by row, and compares it with the stack's database by its function
    C(telegram.compare_legacy_rows). It fails where anything is missing or different, and names channels and days.
  - A row is right when its id leads to its message and that says what the newest row of the message says, is deleted
    and processed where the row says so; or when the row stands in C(telegram.quarantine). What Telegram edited later
    is right, too.
  - One run works for about O(seconds). Run it again with O(begin) set to RV(next_window) until RV(complete).
  - Messages are changed on neither side. Of a window that differs the record that it was copied is forgotten, and
    the keys of messages that are not there, so that the next M(tradingsystem.telegram_stack.message_copy) takes it
    again; in check mode not even that.
options:
  begin:
    description:
      - The window to begin with, as RV(next_window) of the run before; the first one by default.
    type: str
  settled:
    description:
      - Of windows that have changed at the source since they were copied, compare only the rows that have not. For a
        source that is in use, where what has been written since cannot be here; the next
        M(tradingsystem.telegram_stack.message_copy) takes it.
    type: bool
    default: false
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
  - tradingsystem.telegram_stack.legacy_source
  - tradingsystem.telegram_stack.legacy_source.connection
attributes:
  check_mode:
    description: The same, as nothing is changed.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Compare every message with the legacy system
  tradingsystem.telegram_stack.message_verify:
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
    seconds: 3600
"""

RETURN = r"""
complete:
  description: Whether the last window was compared.
  returned: always
  type: bool
  sample: true
next_window:
  description: Where the next run has to begin.
  returned: when not RV(complete)
  type: str
  sample: "2026-05-04 00:00:00+00"
rows:
  description: How many rows this run has compared.
  returned: always
  type: int
  sample: 300000
differences:
  description:
    - Channels and days with differences, a hundred at most. Of C(rows), C(lacking) are not here, C(differing) have
      another text here, C(undeleted) are deleted there alone, C(unprocessed) are processed there alone.
  returned: always
  type: list
  elements: dict
  sample:
    - {channel: "-1001234567890", day: "2026-05-04", rows: 40, lacking: 1, differing: 0, undeleted: 0, unprocessed: 0}
"""

import contextlib
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
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.postgresql import connection_argument_spec

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg

SHOWN = 100
_FORGET = "DELETE FROM telegram.copied_windows WHERE source = %s AND window_start = ANY (%s)"
# What a chunk that was lost has left: a message with a key counts as stored.
_FORGET_KEYS = """
DELETE FROM telegram.message_keys AS k USING pg_temp.legacy_read AS r
WHERE k.channel_id = r.channel AND k.message_id = r.message AND NOT EXISTS (
  SELECT FROM telegram.messages AS m
  WHERE m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
)
"""


def compare(module: AnsibleModule, table: LegacyTable, target: psycopg.Connection[Any]) -> dict[str, Any]:
    """Go through the windows until the time is up. Raises LegacyError and psycopg.Error."""
    prepare(target)
    with table.at_one_moment():
        windows = _from(table.windows(), module.params["begin"])
        as_copied, settled = copied(table, target), module.params["settled"]
        differences: list[dict[str, Any]] = []
        rows = done = 0

        def reading(window: Window) -> Callable[[], bytes]:
            changed = settled and as_copied.get(window.start) != window.checksum
            return partial(table.rows, window, copied_rows(table, window, target) if changed else None)

        reads = ((window, reading(window)) for window in begun_within(module.params["seconds"], windows))
        with contextlib.closing(read_ahead(reads)) as read:
            while batch := _next(read):
                with target.transaction():
                    for _window, given in batch:
                        bring(given.result(), target)
                    target.execute("SELECT telegram.read_legacy_rows()")
                    rows += _read(target)
                    found = differing(table, target)
                    if found and not module.check_mode:
                        target.execute(_FORGET, [table.name, [window.start for window, given in batch]])
                        target.execute(_FORGET_KEYS)
                differences += found
                done += len(batch)
    told: dict[str, Any] = {"complete": done == len(windows), "rows": rows, "differences": differences}
    return told if told["complete"] else {**told, "next_window": windows[done].start}


def _next(read: Iterator[tuple[Window, Future[bytes]]]) -> list[tuple[Window, Future[bytes]]]:
    """As many windows as have rows enough for one statement to be worth it."""
    batch: list[tuple[Window, Future[bytes]]] = []
    for each in read:
        batch.append(each)
        if sum(window.rows for window, given in batch) >= ROWS_PER_WINDOW:
            break
    return batch


def _read(target: psycopg.Connection[Any]) -> int:
    """How many rows are compared."""
    (rows,) = target.execute("SELECT count(*) FROM pg_temp.legacy_read").fetchone() or (0,)
    return int(rows)


def _from(windows: list[Window], begin: str | None) -> list[Window]:
    if begin is None:
        return windows
    starts = [window.start for window in windows]
    if begin not in starts:
        raise LegacyError(f"There is no window {begin} at the source. Leave begin out to compare from the first one.")
    return windows[starts.index(begin) :]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            **source_argument_spec(),
            "begin": {"type": "str"},
            "settled": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    result = with_legacy_table(module, "The comparison", compare)
    found = result["differences"]
    if found:
        module.fail_json(msg=verdict(found), **{**result, "differences": found[:SHOWN]})
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
