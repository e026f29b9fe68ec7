"""How the legacy table is read, by its columns alone."""

from __future__ import annotations

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_source import ShapeError, shape

ZONED = "timestamp with time zone"
NEEDED = {"id": "bigint", "channel_id": "bigint", "message_id": "text", "received_at": ZONED}


def test_a_plain_table_goes_by_its_numbers_and_a_hypertable_by_days() -> None:
    assert "r.id >= 7 * 10000::bigint AND r.id < 7 * 10000::bigint + 10000" in shape("t", NEEDED).rows("7")
    hypertable = shape("t", {**NEEDED, "id": "uuid", "created_at": ZONED})
    assert f"r.created_at >= '2026-01-01'::{ZONED}" in hypertable.rows("day 2026-01-01")


def test_ids_of_any_kind_are_quoted() -> None:
    found = shape("t", {**NEEDED, "created_at": ZONED, "id": "text"})
    query = found.rows_by_id("day 2026-01-01", ["a'b", 'c"d', "e\\f"])
    assert query.endswith("""= ANY ('{"a''b","c\\"d","e\\\\f"}'::text[])""")


def test_a_column_that_is_not_there_is_null_and_an_unknown_one_is_named() -> None:
    found = shape("t", {**NEEDED, "metadata": "json", "mood": "text"})
    assert len(found.selected.split(", ")) == 22
    assert found.selected.count("NULL") == 22 - len(NEEDED) - 1
    assert "to_jsonb(r.metadata)" in found.selected
    assert found.unread == ("mood",)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("message_id", "t lacks message_id: it is no table of messages"),
        ("received_at", "t lacks telegram_date or received_at or created_at"),
        ("id", "t lacks id; created_at, or a number as id"),
    ],
)
def test_a_table_of_something_else_is_refused(without: str, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        shape("t", {name: kind for name, kind in NEEDED.items() if name != without})
