"""The pure parts of the sentinel modules: addresses, replies, agreement, drift."""

from __future__ import annotations

import pytest
from plugins.module_utils.sentinel import (
    Address,
    SentinelError,
    agreed_primary,
    describe_replica,
    differing,
    is_up,
    pairs,
    parse_address,
)

ONE, TWO, THREE = Address("10.0.0.1", 26379), Address("10.0.0.2", 26379), Address("10.0.0.3", 26379)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", Address("10.0.0.1", 26379)),
        (" cache-1:26380 ", Address("cache-1", 26380)),
        ("fd00::1", Address("fd00::1", 26379)),
        ("[fd00::1]:26380", Address("fd00::1", 26380)),
        ("[fd00::1]", Address("fd00::1", 26379)),
    ],
)
def test_an_address_may_carry_its_port(text: str, expected: Address) -> None:
    assert parse_address(text, 26379) == expected


@pytest.mark.parametrize("text", ["", ":26379", "host:port", "host:0", "host:70000", "[]:1"])
def test_what_is_no_address_is_refused_with_the_ways_to_write_one(text: str) -> None:
    with pytest.raises(SentinelError, match=r"write host, host:port or \[address\]:port"):
        parse_address(text, 26379)


def test_an_ipv6_address_is_shown_with_brackets() -> None:
    assert str(Address("fd00::1", 6379)) == "[fd00::1]:6379"


def test_flat_lists_and_maps_read_alike() -> None:
    assert pairs(["port", 6379, "flags", "master"]) == pairs({"port": 6379, "flags": "master"})


def test_a_reply_with_a_name_but_no_value_is_no_reply() -> None:
    with pytest.raises(ValueError, match="zip"):
        pairs(["port", "6379", "flags"])


@pytest.mark.parametrize(
    ("flags", "up"),
    [("master", True), ("slave,disconnected", False), ("s_down,master", False), ("master,o_down", False)],
)
def test_flags_tell_who_is_reached(flags: str, up: bool) -> None:
    assert is_up({"flags": flags}) is up


def test_a_replica_is_described_with_its_link() -> None:
    reply = {
        "ip": "10.0.0.2",
        "port": "6380",
        "flags": "slave",
        "master-link-status": "err",
        "slave-priority": "0",
        "slave-repl-offset": "991",
    }
    assert describe_replica(reply) == {
        "address": "10.0.0.2",
        "port": 6380,
        "reachable": True,
        "link_up": False,
        "priority": 0,
        "offset": 991,
    }


def test_one_primary_is_what_all_sentinels_name() -> None:
    primary = Address("10.0.0.5", 6379)
    assert agreed_primary("telegram", {ONE: primary, TWO: primary, THREE: primary}) == primary


def test_a_disagreement_says_who_says_what() -> None:
    answers = {ONE: Address("10.0.0.5", 6379), TWO: Address("10.0.0.6", 6379), THREE: Address("10.0.0.5", 6379)}
    with pytest.raises(SentinelError) as refusal:
        agreed_primary("telegram", answers)
    for sentinel, primary in answers.items():
        assert f"{sentinel} says {primary}" in str(refusal.value)


def test_only_settings_that_are_given_and_differ_are_changed() -> None:
    current = {"quorum": "1", "down-after-milliseconds": "30000", "failover-timeout": "10000"}
    wanted = {"quorum": 1, "down-after-milliseconds": 5000, "failover-timeout": 10000, "parallel-syncs": None}
    assert differing(current, wanted) == {"down-after-milliseconds": 5000}


def test_a_sentinel_that_watches_nothing_yet_gets_every_setting() -> None:
    assert differing({}, {"quorum": 2, "parallel-syncs": None}) == {"quorum": 2}
