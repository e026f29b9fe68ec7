"""What a message of ours becomes in a legacy table, and the config that the role renders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from telegram_stack.config import load
from telegram_stack.legacy.config import FeedConfig
from telegram_stack.legacy.form import CONSUMER_KEYS, bounds, forms, legacy_form, marked, signal_form
from telegram_stack.legacy.tables import ShapeError, messages, signals

ROLES = Path("roles")
DATE = "2026-05-04T12:00:00+00:00"


def document(**given: Any) -> dict[str, Any]:
    common = {"channel_id": -1001000000001, "message_id": 7, "telegram_date": DATE, "deleted_at": None, "state": None}
    common |= {"message_type": "photo"}
    return {**common, "metadata": {"processed_by": "signals", "processed_at": DATE, "kept": 1}, "signal": None, **given}


@pytest.mark.parametrize(
    ("state", "status", "processed_by"),
    [
        (None, None, None),
        ("received", "received", None),
        ("retrying", "received", None),
        ("failed", "failed", None),
        ("published", "published", "tp-capital"),
        ("ignored", "published", "tp-capital"),
        ("reprocess_pending", "reprocess_pending", None),
    ],
)
def test_only_what_is_done_is_marked_as_done(state: str | None, status: str | None, processed_by: str | None) -> None:
    row = legacy_form(document(state=state), str, "tp-capital")
    assert (row["status"], row["metadata"].get("processed_by"), row["processed"]) == (
        status,
        processed_by,
        processed_by is not None,
    )
    assert row["metadata"]["kept"] == 1
    assert row["metadata"].get("ignored") == (True if state == "ignored" else None)
    assert row["created_at"] == DATE


def test_a_type_of_ours_is_the_one_that_the_legacy_system_knows() -> None:
    row = legacy_form(document(metadata={"telegram": {"threadId": 3, "messageType": "photo"}}), str, "x")
    assert (row["message_type"], row["metadata"]["telegram"]) == (
        "channel_post",
        {"threadId": 3, "messageType": "channel_post"},
    )
    assert legacy_form(document(message_type="message"), str, "x")["message_type"] == "message"


def test_deleted_is_deleted_whatever_was_done() -> None:
    assert legacy_form(document(state="published", deleted_at=DATE), str, "x")["status"] == "deleted"


def test_a_channel_has_one_form_or_two() -> None:
    assert forms(-1001000000001) == ["-1001000000001", "1000000001"]
    assert forms(-123) == ["-123"]
    assert [marked(name) for name in ("-1001000000001", "1000000001", "-123", "minha sala", "0")] == [
        -1001000000001, -1001000000001, -123, None, None,
    ]  # fmt: skip
    signal = signal_form(document(signal={"channel_id": -123, "asset": "PETR4"}), lambda channel: f"<{channel}>")
    assert (signal["channel"], signal["forms"]) == ("<-123>", ["-123"])


def test_bounds_hold_every_row_that_may_be_found() -> None:
    rows = [{"created_at": "2026-05-04T12:00:00.5+00:00"}, {"created_at": "2026-05-04T12:00:00+00:00"}]
    assert bounds([document(created_at=DATE, legacy_rows=rows)]) == (DATE, rows[0]["created_at"])
    assert bounds([document(created_at=DATE, legacy_rows=[{"created_at": "infinity"}])]) == (DATE, "infinity")


def test_statements_name_only_columns_that_are_there() -> None:
    needed = dict.fromkeys(("channel_id", "text", "status"), "text") | {"id": "bigint", "message_id": "bigint"}
    found = messages("t", {**needed, "metadata": "json"})
    assert "caption" not in found.apply.partition("found AS")[2]
    assert "created_at =" not in found.apply
    assert "WHERE r.id > %(last_row_id)s" in found.apply
    for key in CONSUMER_KEYS:
        assert f"- '{key}'" in found.apply
    with pytest.raises(ShapeError, match="t lacks status, metadata"):
        messages("t", dict.fromkeys(("id", "channel_id", "message_id", "text"), "text"))
    with pytest.raises(ShapeError, match="created_at, or a number as id"):
        messages("t", {**needed, "metadata": "jsonb", "id": "uuid"})
    with pytest.raises(ShapeError, match="t lacks ts: it is no table of signals"):
        signals("t", {"channel": "text", "asset": "text"})
    assert (
        "(extract(epoch FROM n.message_date) * 1000)::bigint"
        in signals("t", {"channel": "text", "asset": "text", "ts": "bigint", "stop": "numeric"}).apply
    )


def test_the_role_renders_what_the_feed_reads(tmp_path: Path) -> None:
    environment = Environment(autoescape=False)  # noqa: S701  # TOML, not a page
    environment.filters["to_json"] = json.dumps
    variables: dict[str, Any] = {}
    for role in ("common", "legacy_feed"):
        variables |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    variables |= {"legacy_feed_source_host": "10.0.0.9", "legacy_feed_source_user": "u", "legacy_feed_source_db": "d"}
    path = tmp_path / "legacy_feed.toml"
    path.write_text(
        environment.from_string((ROLES / "legacy_feed/templates/legacy_feed.toml.j2").read_text()).render(variables)
    )
    config = load(path, FeedConfig)
    assert (config.legacy.host, config.database.user, config.database.port) == ("10.0.0.9", "telegram_feed", 5434)
    assert (config.consumer, config.port, config.batch_size) == ("tp-capital", 4012, 500)
