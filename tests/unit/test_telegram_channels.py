"""How far a channel's events are complete."""

from __future__ import annotations

import random

import pytest

from telegram_stack.spool import Channel
from telegram_stack.telegram.channels import Channels, Policy

A, B = -1001, -1002


def complete(last: int = 10, pts: int = 100) -> Channels:
    channels = Channels({A: Channel(channel_id=A, access_hash=1, last_message_id=last, pts=pts)}, "all")
    channels.read_to_end(A, pts)
    assert channels.open == []
    return channels


def progress(channels: Channels) -> tuple[int | None, int | None]:
    return channels[A].last_message_id, channels[A].pts


def test_what_the_spool_remembers_is_open_at_first() -> None:
    assert Channels({A: Channel(channel_id=A), B: Channel(channel_id=B)}, "all").open == [A, B]


def test_progress_moves_with_updates_that_follow_each_other() -> None:
    channels = complete()
    assert channels.live(A, [11], 101, 1) is not None
    assert channels.live(A, [0], 103, 2) is not None  # two deletions
    assert channels.live(A, [12], 104, 1) is not None
    assert progress(channels) == (12, 104)


def test_an_update_that_came_before_moves_nothing() -> None:
    channels = complete()
    assert channels.live(A, [9], 99, 1) is None
    assert (progress(channels), channels.open) == ((10, 100), [])


@pytest.mark.requirement("GW-06")
def test_a_hole_stops_progress_until_history_was_read() -> None:
    channels = complete()
    assert channels.live(A, [13], 103, 1) is None
    assert channels.live(A, [14], 104, 1) is None
    assert (progress(channels), channels.open) == ((10, 100), [A])
    channels.read(A, 14)
    channels.read_to_end(A, 104)
    assert (progress(channels), channels.open) == ((14, 104), [])


@pytest.mark.requirement("GW-06")
def test_updates_of_a_difference_have_no_count_and_open_the_channel() -> None:
    channels = complete()
    assert channels.live(A, [11], 0, 0) is None
    assert channels.open == [A]


@pytest.mark.requirement("GW-06")
def test_what_comes_live_during_the_reading_joins_its_end() -> None:
    channels = complete()
    channels.open_all()
    channels.live(A, [15], 105, 1)
    channels.live(A, [16], 106, 1)
    channels.read(A, 14)
    channels.read_to_end(A, 105)  # history had everything up to the first of them
    assert (progress(channels), channels.open) == ((16, 106), [])


@pytest.mark.requirement("GW-06")
def test_a_hole_behind_the_end_of_history_keeps_the_channel_open() -> None:
    channels = complete()
    channels.open_all()
    channels.live(A, [15], 105, 1)
    channels.live(A, [18], 108, 1)  # 106 and 107 are missing
    channels.read(A, 15)
    channels.read_to_end(A, 105)
    assert (progress(channels), channels.open) == ((15, 105), [A])
    channels.read(A, 17)
    channels.read_to_end(A, 107)
    assert (progress(channels), channels.open) == ((18, 108), [])


def test_a_server_without_counts_in_history_is_believed() -> None:
    channels = Channels({A: Channel(channel_id=A, access_hash=1)}, "all")
    channels.read(A, 5)
    channels.read_to_end(A, None)
    assert channels.open == []
    assert channels.live(A, [6], 7, 1) is not None
    assert progress(channels) == (6, 7)


def test_an_unknown_channel_is_open() -> None:
    channels = complete()
    assert channels.live(B, [1], 5, 1) is None
    assert channels.open == [B]


def test_what_could_not_be_kept_is_taken_back() -> None:
    channels = complete()
    before = channels[A]
    channels.live(A, [11], 101, 1)
    channels.restore(before)
    channels.reopen(A)
    assert (progress(channels), channels.open) == ((10, 100), [A])


@pytest.mark.requirement("GW-06")
@pytest.mark.parametrize("seed", range(300))
def test_progress_never_passes_what_is_missing(seed: int) -> None:
    """Any mix of lost updates, reconnects and readings: each message up to the cursor was received or read."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable test
    channels = complete(0, 1)
    posted, have = 0, set[int]()
    for _ in range(200):
        match chance.choice(["post", "post", "post", "lose", "reconnect", "difference", "read"]):
            case "post":
                posted += 1
                have.add(posted)
                channels.live(A, [posted], posted + 1, 1)
            case "lose":
                posted += 1
            case "reconnect":
                channels.open_all()
            case "difference" if posted:
                have.add(posted)
                channels.live(A, [posted], 0, 0)
            case "read" if A in channels.open:
                seen = posted  # the answer was made; more comes before it arrives
                for _ in range(chance.randrange(3)):
                    posted += 1
                    if chance.random() < 0.7:
                        have.add(posted)
                        channels.live(A, [posted], posted + 1, 1)
                have |= set(range(1, seen + 1))
                channels.read(A, seen)
                channels.read_to_end(A, seen + 1)
        last = channels[A].last_message_id or 0
        assert set(range(1, last + 1)) <= have, (last, sorted(have))
    channels.read(A, posted)
    channels.read_to_end(A, posted + 1)
    assert (channels.open, channels[A].last_message_id) == ([], posted)


@pytest.mark.requirement("GW-15")
def test_all_takes_everything_but_the_inactive() -> None:
    channels = Channels({}, "all")
    channels.describe(A, 1, "a", None)
    channels.describe(B, 1, "b", None)
    channels.register({A: False})
    assert (channels.accepts(A), channels.accepts(B), channels.accepts(-1003)) == (False, True, True)
    assert channels.open == [B]


@pytest.mark.requirement("GW-15")
def test_registered_takes_the_active_ones_and_all_while_none_is_registered() -> None:
    channels = Channels({}, "registered")
    assert channels.accepts(A)
    assert [channel.channel_id for channel in channels.register({A: True, B: False})] in ([A, B], [B, A])
    assert (channels.accepts(A), channels.accepts(B), channels.accepts(-1003)) == (True, False, False)
    assert channels.register({A: True, B: False}) == []
    channels.register({})
    assert channels.accepts(-1003)


@pytest.mark.requirement("GW-15")
@pytest.mark.parametrize("policy", ["all", "registered"])
def test_a_channel_that_is_known_from_the_registry_only_is_open_whatever_comes_live(policy: Policy) -> None:
    """The registry may be there before the account's list, and a message between the two."""
    channels = Channels({}, policy)
    channels.register({A: True, B: True})
    assert channels.live(A, [50], 60, 1) is None
    channels.describe(A, 1, "a", None)
    channels.compare(A, 60)
    assert sorted(channels.open) == sorted([A, B])


@pytest.mark.requirement("GW-15")
def test_a_channel_that_is_taken_again_is_read_from_where_it_was_left() -> None:
    channels = complete()
    channels.register({A: False})
    channels.register({A: True})
    assert channels.open == [A]
    assert progress(channels) == (10, 100)


def test_a_gap_is_counted_when_it_is_found_and_once() -> None:
    channels = complete()
    assert channels.live(A, [11], 101, 1) is not None
    assert channels.live(B, [1], 5, 1) is None  # never seen before: nothing of it was missed
    assert channels.gaps == 0
    channels.live(A, [14], 104, 1)
    channels.live(A, [16], 106, 1)
    assert channels.gaps == 1
    channels.read(A, 16)
    channels.read_to_end(A, 106)
    channels.compare(A, 106)
    assert channels.gaps == 1


def test_what_was_missed_before_a_new_connection_is_one_gap() -> None:
    channels = complete()
    channels.open_all()
    channels.compare(A, 100)  # complete after all
    channels.open_all()
    assert channels.gaps == 0
    channels.compare(A, 120)
    channels.compare(A, 121)
    assert channels.gaps == 1
