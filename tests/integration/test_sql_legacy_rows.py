"""Rows of the legacy tables become messages, on all three engines: whatever order, whatever they are like."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.servers import Postgres

from telegram_stack.events import Content, version_of

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
ORIGIN = "legacy telegram_gateway.messages"
Row = dict[str, Any]
Connection = psycopg.Connection[Any]
_numbers = itertools.count(1_000_000_001)


@pytest.fixture
def owner(engine_server: Postgres) -> Iterator[Connection]:
    with engine_server.connect("telegram_owner") as connection:
        connection.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row")
        yield connection


@pytest.fixture
def number() -> int:
    """A channel of the test's own, without -100."""
    return next(_numbers)


def marked(number: int) -> int:
    return -1_000_000_000_000 - number


def row(number: int, legacy_id: str, message_id: object = 1, minutes: int = 0, **columns: Any) -> Row:
    """A row that was made `minutes` after the message."""
    made = NOW + timedelta(minutes=minutes)
    common = {"legacy_id": f"{number}-{legacy_id}", "channel_id": f"-100{number}", "message_id": str(message_id)}
    times = {"telegram_date": NOW, "received_at": made, "created_at": made, "updated_at": made}
    return {**common, **times, "status": "received", "source": "user_client", "metadata": {}, "text": "x", **columns}


def adopt(connection: Connection, *rows: Row) -> dict[str, int]:
    """One window."""
    with connection.transaction():
        connection.execute("DELETE FROM legacy_rows")
        for given in rows:
            names = ", ".join(given)
            values = [Jsonb(value) if isinstance(value, dict | list) else value for value in given.values()]
            places = ", ".join(["%s"] * len(values))
            connection.execute(f"INSERT INTO legacy_rows ({names}) VALUES ({places})".encode(), values)  # noqa: S608
        cursor = connection.execute("SELECT * FROM telegram.adopt_legacy_rows(%s)", [ORIGIN])
        assert cursor.description
        counts = cursor.fetchone()
        assert counts is not None
        return {column.name: value for column, value in zip(cursor.description, counts, strict=True)}


def found(connection: Connection, number: int, columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM telegram.messages WHERE channel_id = %s ORDER BY message_id"  # noqa: S608
    return connection.execute(query.encode(), [marked(number)]).fetchall()


def unprocessed(connection: Connection, number: int) -> list[int]:
    consumer = "(SELECT value FROM telegram.settings WHERE name = 'status_consumer')"
    query = f"SELECT message_id FROM telegram.get_unprocessed_messages({consumer}, 100, %s)"  # noqa: S608
    return [message for (message,) in connection.execute(query.encode(), [marked(number)])]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_duplicates_become_one_message_in_whatever_order_they_come(
    owner: Connection, number: int, order: tuple[int, ...]
) -> None:
    rows = [
        row(number, "a", minutes=0, text="first", metadata={"a": 1, "b": 1}, deleted_at=NOW + timedelta(hours=1)),
        row(number, "b", minutes=5, text="last", metadata={"b": 2}, media_type="photo"),
        row(number, "c", minutes=3, text="between", metadata={"b": 3, "c": 3, "processed_by": "tp-capital"}),
    ]
    counts = [adopt(owner, rows[place]) for place in order]
    assert sum(count["duplicates"] for count in counts) == 2
    assert found(owner, number, "text, metadata, media ->> 'type', deleted_at") == [
        ("last", {"a": 1, "b": 2, "c": 3}, "photo", NOW + timedelta(hours=1))
    ]
    ids = owner.execute("SELECT count(*) FROM telegram.legacy_ids WHERE channel_id = %s", [marked(number)]).fetchone()
    assert ids == (3,)
    before = found(owner, number, "*")
    again = adopt(owner, *rows)
    assert {name: again[name] for name in ("duplicates", "written", "deleted", "processed")} == {
        "duplicates": 0, "written": 0, "deleted": 0, "processed": 0,
    }  # fmt: skip
    assert found(owner, number, "*") == before
    assert unprocessed(owner, number) == []


def test_a_window_with_all_of_them_gives_the_same(owner: Connection, number: int) -> None:
    counts = adopt(
        owner,
        row(number, "a", minutes=0, text="first", metadata={"a": 1, "b": 1}, telegram_date=None),
        row(number, "b", minutes=5, text="last", metadata={"b": 2}),
        row(number, "b", minutes=5, text="last", metadata={"b": 2}),
    )
    assert (counts["given"], counts["undated"], counts["duplicates"], counts["written"]) == (3, 1, 1, 1)
    assert found(owner, number, "text, metadata, message_date") == [("last", {"a": 1, "b": 2}, NOW)]


def test_only_the_consumers_word_counts_as_processed(owner: Connection, number: int) -> None:
    done = {"processed_by": "tp-capital", "processed_at": "2026-01-01T00:00:00Z", "signal_asset": "PETR4"}
    adopt(
        owner,
        row(number, "1", 1, status="published"),  # another channel's message of this number was published
        row(number, "2", 2, status="published", metadata={**done, "kept": True}),
        row(number, "3", 3, status="received", metadata={**done, "ignored": True, "reason": "no signal"}),
        row(number, "4", 4, status="queued"),
        row(number, "5", 5, status="reprocess_pending", metadata=done),
    )
    assert unprocessed(owner, number) == [5, 1, 4]
    view = "SELECT status, metadata ->> 'signal_asset', metadata ->> 'kept' FROM telegram_gateway.messages"
    shown = owner.execute(
        f"{view} WHERE channel_id = %s ORDER BY message_id".encode(), [str(marked(number))]
    ).fetchall()
    assert shown == [
        ("received", None, None),
        ("published", "PETR4", "true"),
        ("ignored", "PETR4", None),
        ("received", None, None),
        ("reprocess_pending", "PETR4", None),
    ]
    assert found(owner, number, "metadata")[1] == ({"kept": True},)


def test_what_is_no_message_is_kept_aside_once_with_its_reason(owner: Connection, number: int) -> None:
    bad = [
        row(number, "junk", channel_id="minha sala"),
        row(number, "zero", message_id="0"),
        row(number, "big", message_id="99999999999"),
        row(number, "never", telegram_date=None, received_at=None, created_at=None),
        row(number, "infinite", telegram_date="infinity"),
        row(number, "ancient", telegram_date="1970-01-01 00:00+00"),
    ]
    assert adopt(owner, row(number, "good", 7), *bad)["quarantined"] == len(bad)
    assert adopt(owner, *bad)["quarantined"] == 0
    assert found(owner, number, "message_id") == [(7,)]
    kept = owner.execute(
        "SELECT payload ->> 'legacy_id', reason FROM telegram.quarantine"
        " WHERE origin = %s AND payload ->> 'legacy_id' LIKE %s ORDER BY id",
        [ORIGIN, f"{number}-%"],
    ).fetchall()
    assert {name.partition("-")[2]: reason for name, reason in kept} == {
        "junk": "the channel id is none of Telegram",
        "zero": "the message id is none of Telegram",
        "big": "the message id is none of Telegram",
        "never": "there is no date",
        "infinite": "the date is not of Telegram's time",
        "ancient": "the date is not of Telegram's time",
    }


def test_a_channel_is_the_same_with_and_without_its_mark(owner: Connection, number: int) -> None:
    adopt(owner, row(number, "a", 1), row(number, "b", 2, channel_id=str(number)))
    assert found(owner, number, "message_id") == [(1,), (2,)]


def test_history_read_again_changes_nothing_and_a_later_edit_does(owner: Connection, number: int) -> None:
    adopt(owner, row(number, "a", 1, text="as it was", metadata={"processed_by": "tp-capital"}))
    upsert = """SELECT telegram.bulk_upsert_messages(
      %s::bigint[], '{1}', %s::timestamptz[], %s::bigint[], %s::timestamptz[], '{user_client}', '{text}', %s::text[]
    )"""

    def store(text: str, edited: datetime | None) -> None:
        version = version_of(Content(text=text), NOW, edited)
        owner.execute(upsert.encode(), [[marked(number)], [NOW], [version], [NOW], [text]])

    store("as Telegram has it", None)
    assert (found(owner, number, "text"), unprocessed(owner, number)) == ([("as it was",)], [])
    store("edited", NOW + timedelta(minutes=1))
    assert (found(owner, number, "text"), unprocessed(owner, number)) == ([("edited",)], [1])


def test_what_the_row_said_comes_back_to_its_clients(owner: Connection, number: int) -> None:
    references = [{"fileId": "1", "size": None}, {"fileId": "2"}]
    facts = {
        "photo": {"photoId": "5193", "accessHash": "-12"},
        "replyTo": {"messageId": 3, "text": "before"},
        "linkPreview": {"type": "youtube", "url": "https://example.org/"},
    }
    adopt(
        owner,
        row(
            number,
            "a",
            text=None,
            caption="see",
            media_type="photo",
            media_refs=references,
            metadata=facts,
            thread_id=9,
        ),
    )
    assert found(owner, number, "text, media - 'refs', link_preview, topic_id") == [
        ("see", {"type": "photo", "id": 5193, "access_hash": -12}, facts["linkPreview"], 9)
    ]
    shown = owner.execute(
        "SELECT caption, media_type, media_refs, thread_id, received_at, telegram_date, metadata"
        " FROM telegram_gateway.messages WHERE channel_id = %s",
        [str(marked(number))],
    ).fetchone()
    assert shown is not None
    assert shown[:6] == ("see", "photo", references, 9, NOW, NOW)
    assert {name: shown[6][name] for name in facts} == facts


def test_nothing_given_is_nothing_done(owner: Connection) -> None:
    assert set(adopt(owner).values()) == {0}
