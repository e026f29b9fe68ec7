"""What Telegram published against what a store has and a consumer has done; a live load to publish it.

    python -m tests.legacy.ledger start --control http://10.0.0.1:8454 --rate 20       # prints since when
    python -m tests.legacy.ledger stop --control http://10.0.0.1:8454
    python -m tests.legacy.ledger compare --control http://10.0.0.1:8454 --since 1767225600.5 --within 30 \\
      --legacy postgresql://timescale@10.0.0.5:5433/tradingsystem

Instead of `--legacy` a store of ours with `--ours`, of whose consumer the setting `status_consumer` tells; `--signals`
is the database of signals in legacy form when it is another. Passwords come from PGPASSWORD. `compare` prints JSON,
asks again until nothing is wrong or the time is over, and ends with 1 when something is. It looks at what was published
since; without `--since` at all that Telegram has.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from tests.legacy.control import Control

Key = tuple[int, int]
_MARK = 10**12
_EDITED = "\n(editado)"
_SIGNAL = re.compile(r"ATIVO:[^\0]*COMPRA:")

_LEGACY = """
SELECT channel_id::text, message_id::text, coalesce(text, caption, ''), deleted_at IS NOT NULL,
  coalesce(metadata ->> 'processed_by' = 'tp-capital', false)
FROM telegram_gateway.messages
WHERE coalesce(telegram_date, received_at) >= to_timestamp(%s)
  AND channel_id::text ~ '^-?[0-9]+$' AND message_id::text ~ '^[0-9]+$'
ORDER BY created_at
"""
_OURS = """
SELECT m.channel_id, m.message_id, m.text, m.deleted_at IS NOT NULL, coalesce(p.version = m.version, false)
FROM telegram.messages AS m LEFT JOIN telegram.processing AS p
  ON p.consumer = (SELECT value FROM telegram.settings WHERE name = 'status_consumer')
  AND p.channel_id = m.channel_id AND p.message_id = m.message_id
WHERE m.message_date >= to_timestamp(%s)
"""
_LEGACY_SIGNALS = """
SELECT channel, raw_message FROM tp_capital.tp_capital_signals WHERE ts >= %s * 1000.0 AND channel ~ '^-?[0-9]+$'
"""
_OUR_SIGNALS = "SELECT channel_id, message_id FROM telegram.signals WHERE message_date >= to_timestamp(%s)"


@dataclass(frozen=True)
class Published:
    """A message as Telegram has it now, or had it when it was deleted."""

    text: str
    deleted: bool


@dataclass(frozen=True)
class Kept:
    """One row of a store: `processed` is whether its consumer has done this version of it."""

    text: str
    deleted: bool
    processed: bool


@dataclass
class Account:
    """Where the two differ, by channel and message. `doubled` are rows, which the legacy table may have."""

    published: int = 0
    stored: int = 0
    processed: int = 0
    lost: list[Key] = field(default_factory=list)
    different: list[Key] = field(default_factory=list)
    undeleted: list[Key] = field(default_factory=list)
    doubled: list[Key] = field(default_factory=list)
    unprocessed: list[Key] = field(default_factory=list)
    signals_lost: list[Key] = field(default_factory=list)
    signals_doubled: list[Key] = field(default_factory=list)

    def clean(self, allowed: Collection[str] = ()) -> bool:
        """Whether nothing differs, but in what is `allowed`."""
        return not any(value for name, value in vars(self).items() if isinstance(value, list) and name not in allowed)


def account(published: Mapping[Key, Published], rows: Mapping[Key, Sequence[Kept]], signals: Counter[Key]) -> Account:
    """Compare. Of several rows the last is what the message says."""
    found = Account(published=len(published))
    for key, message in published.items():
        kept = rows.get(key, ())
        found.stored += bool(kept)
        found.processed += any(row.processed for row in kept)
        if message.deleted:
            _add(found.undeleted, key, any(not row.deleted for row in kept))
        else:
            _add(found.lost, key, not kept)
            _add(found.different, key, bool(kept) and (kept[-1].deleted or kept[-1].text != message.text))
            _add(found.unprocessed, key, bool(kept) and not any(row.processed for row in kept))
            done = any(row.processed for row in kept)
            _add(found.signals_lost, key, done and bool(_SIGNAL.search(message.text)) and not signals[key])
        _add(found.doubled, key, sum(not row.deleted for row in kept) > 1)
        _add(found.signals_doubled, key, signals[key] > 1)
    return found


def _add(keys: list[Key], key: Key, applies: bool) -> None:
    if applies:
        keys.append(key)


def published_since(control: Control, since: float) -> dict[Key, Published]:
    """What was published since a moment, in seconds since 1970."""
    return {
        (message["channel_id"], message["message_id"]): Published(message["text"], message["deleted"])
        for message in control.messages()
        if message["sent_at"] >= since
    }


def legacy_rows(connection: psycopg.Connection[Any], since: float) -> dict[Key, list[Kept]]:
    """The rows of each message, the one made last at the end; a channel's id may lack its -100."""
    return _by_key((_marked(channel), number, *rest) for channel, number, *rest in _all(connection, _LEGACY, since))


def our_rows(connection: psycopg.Connection[Any], since: float) -> dict[Key, list[Kept]]:
    """The rows of each message: one, or something is very wrong."""
    return _by_key(_all(connection, _OURS, since))


def legacy_signals(
    connection: psycopg.Connection[Any], published: Mapping[Key, Published], since: float
) -> Counter[Key]:
    """How many signals there are of each message, which is known by its text: before its edit or after it."""
    keys = {
        (channel, message.text.removesuffix(_EDITED)): (channel, number)
        for (channel, number), message in published.items()
    }
    rows = (
        (_marked(channel), text.removesuffix(_EDITED)) for channel, text in _all(connection, _LEGACY_SIGNALS, since)
    )
    return Counter(keys[row] for row in rows if row in keys)


def our_signals(connection: psycopg.Connection[Any], since: float) -> Counter[Key]:
    """How many signals there are of each message."""
    return Counter((channel, number) for channel, number in _all(connection, _OUR_SIGNALS, since))


def _by_key(rows: Iterable[Sequence[Any]]) -> dict[Key, list[Kept]]:
    found: defaultdict[Key, list[Kept]] = defaultdict(list)
    for channel, number, text, deleted, processed in rows:
        found[int(channel), int(number)].append(Kept(text, deleted, processed))
    return dict(found)


def _marked(channel: str) -> int:
    return int(channel) if channel.startswith("-") else -_MARK - int(channel)


def _all(connection: psycopg.Connection[Any], query: str, since: float) -> list[Any]:
    return connection.execute(query.encode(), [since - 5]).fetchall()  # Telegram's dates are whole seconds


def compare(control: Control, since: float, *, ours: str | None, legacy: str | None, signals: str | None) -> Account:
    """One comparison with the store of ours or the legacy one."""
    published = published_since(control, since)
    store = ours or legacy
    assert store
    with psycopg.connect(store, autocommit=True) as connection:
        rows = (our_rows if ours else legacy_rows)(connection, since)
        if ours and not signals:
            return account(published, rows, our_signals(connection, since))
    with psycopg.connect(signals or store, autocommit=True) as connection:
        return account(published, rows, legacy_signals(connection, published, since))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("start", "stop", "compare"):
        verbs.add_parser(name).add_argument("--control", required=True, type=Control)
    start = verbs.choices["start"]
    start.add_argument("--rate", type=float, required=True)
    start.add_argument("--edit-every", type=int, default=10)
    start.add_argument("--delete-every", type=int, default=15)
    compared = verbs.choices["compare"]
    compared.add_argument("--since", type=float, default=0.0)
    compared.add_argument("--allow", nargs="*", default=[], metavar="DIFFERENCE", help="such as doubled")
    compared.add_argument("--within", type=float, default=0.0, help="seconds until nothing is wrong any more")
    store = compared.add_mutually_exclusive_group(required=True)
    store.add_argument("--ours", metavar="URL")
    store.add_argument("--legacy", metavar="URL")
    compared.add_argument("--signals", metavar="URL")
    return parser


def main() -> None:
    """Command line."""
    given = _parser().parse_args()
    control: Control = given.control
    if given.verb == "start":
        since = time.time()
        control.ask(
            "POST", "/load", {"rate": given.rate, "edit_every": given.edit_every, "delete_every": given.delete_every}
        )
        print(json.dumps({"since": since}))
    elif given.verb == "stop":
        print(json.dumps(control.ask("DELETE", "/load")))
    else:
        end = time.monotonic() + given.within
        stores = {"ours": given.ours, "legacy": given.legacy, "signals": given.signals}
        while not (found := compare(control, given.since, **stores)).clean(given.allow) and time.monotonic() < end:
            time.sleep(1)
        clean = found.clean(given.allow)
        print(json.dumps({"clean": clean, **asdict(found)}))
        sys.exit(not clean)


if __name__ == "__main__":
    main()
