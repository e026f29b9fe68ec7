"""What a background policy is, how two differ, and the statements for it: no server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from plugins.module_utils.timescale import (
    CONFIG_KEYS,
    PROCEDURES,
    SETTINGS,
    Interval,
    Order,
    PolicyError,
    add_statement,
    alter_statement,
    changes,
    current,
    engine,
    missing,
    parse_order,
    remove_statement,
    shown,
    skip_message,
    wanted,
)

FORTNIGHT = Interval(timedelta(days=14), "14 days")

every_policy = pytest.mark.parametrize("policy", PROCEDURES)


@pytest.mark.parametrize(
    ("extension", "license_name", "expected"),
    [
        (None, None, "native"),
        ("2.19.3", "apache", "timescale_apache"),
        ("2.19.3", None, "timescale_apache"),
        ("2.23.0", "timescale", "timescale"),
    ],
)
def test_the_engine_follows_from_extension_and_license(
    extension: str | None, license_name: str | None, expected: str
) -> None:
    assert engine(extension, license_name) == expected


def test_an_engine_without_policies_is_named() -> None:
    message = skip_message("native", "compression", "telegram.messages")
    assert "Engine native has no compression policies, so telegram.messages got none" in message
    assert "run_maintenance" in message


def test_intervals_are_equal_by_length_and_shown_by_words() -> None:
    assert Interval(timedelta(days=14), "2 weeks") == FORTNIGHT
    assert Interval(timedelta(days=15), "14 days") != FORTNIGHT
    assert shown({"after": FORTNIGHT, "max_retries": 3}) == {"after": "14 days", "max_retries": 3}


@pytest.mark.parametrize(
    ("text", "expected", "told"),
    [
        ("a", Order("a"), "a"),
        ("a asc", Order("a"), "a"),
        ("a ASC NULLS LAST", Order("a"), "a"),
        ("a nulls first", Order("a", True, True), "a NULLS FIRST"),
        ("a desc", Order("a", False, True), "a DESC"),
        ("a  DESC  nulls  first", Order("a", False, True), "a DESC"),
        ("a DESC NULLS LAST", Order("a", False, False), "a DESC NULLS LAST"),
    ],
)
def test_an_order_is_read_with_sql_s_own_defaults(text: str, expected: Order, told: str) -> None:
    assert parse_order(text) == expected
    assert str(expected) == told
    assert parse_order(told) == expected


@pytest.mark.parametrize("text", ["", "a DOWN", "a DESC LAST", "a, b", "a DESC NULLS LAST x"])
def test_an_order_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match=r"order_by: .* is not understood; write COLUMN"):
        parse_order(text)


def test_an_option_without_meaning_for_the_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="end_offset, index: without meaning for policy retention"):
        wanted("retention", {"after": "1 day", "index": "i", "end_offset": "1 hour"})
    given = {"after": "1 day", "index": None, "enabled": False}
    assert wanted("retention", given) == {"after": "1 day", "enabled": False}


def test_a_new_policy_needs_what_it_is_about() -> None:
    assert missing("compression", {}) == ["after"]
    assert missing("refresh", {"end_offset": FORTNIGHT}) == ["every"]
    assert missing("reorder", {"index": "i"}) == []


def test_a_job_is_read_by_the_names_of_the_options() -> None:
    job: dict[str, Any] = {
        "config": {"drop_after": "90 days", "hypertable_id": 1},
        "schedule_interval": "1 day",
        "max_runtime": "00:05:00",
        "max_retries": -1,
        "retry_period": "00:05:00",
        "scheduled": True,
    }
    assert current("retention", job) == {
        "after": "90 days",
        "every": "1 day",
        "max_runtime": "00:05:00",
        "max_retries": -1,
        "retry_period": "00:05:00",
        "enabled": True,
    }


def test_only_what_differs_is_a_change() -> None:
    before = {"after": FORTNIGHT, "enabled": True}
    assert changes(before, {"after": Interval(timedelta(weeks=2), "2 weeks"), "enabled": False}) == {"enabled": False}
    assert changes({}, {"enabled": False}) == {"enabled": False}


@every_policy
def test_each_option_of_a_policy_is_a_setting_and_stands_in_its_statement(policy: str) -> None:
    for name in CONFIG_KEYS[policy]:
        assert name in SETTINGS
        assert f"%({name})s" in add_statement(policy)
    assert "%(relation)s" in add_statement(policy)
    assert "%(relation)s" in remove_statement(policy)


def test_job_settings_are_arguments_and_the_rest_is_merged_into_the_configuration() -> None:
    assert alter_statement("retention", ["every", "enabled"]) == (
        "SELECT alter_job(%(job)s, schedule_interval => %(every)s, scheduled => %(enabled)s)"
    )
    statement = alter_statement("refresh", ["start_offset", "end_offset"])
    assert (
        "|| jsonb_build_object('start_offset', %(start_offset)s::text, 'end_offset', %(end_offset)s::text)" in statement
    )
