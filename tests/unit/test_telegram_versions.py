"""Which state of a message is the later one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from telegram_stack.events import Content, Event, Media, deletion, version_after, version_of
from telegram_stack.telegram.versions import Versions

POSTED = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def state(text: str, edited: datetime | None = None, message_id: int = 1) -> Event:
    content = Content(text=text)
    return Event(
        kind="new" if edited is None else "edit",
        channel_id=-1001,
        message_id=message_id,
        version=version_of(content, POSTED, edited),
        received_at=POSTED,
        message_date=POSTED,
        edit_date=edited,
        content=content,
    )


@pytest.mark.parametrize("number", range(20))
def test_an_edit_of_the_same_second_is_later_than_the_message(number: int) -> None:
    assert state(f"edit {number}", POSTED).version > state(f"message {number}").version


def test_a_later_edit_is_later_and_a_deletion_is_last() -> None:
    edits = [state("x", POSTED + timedelta(seconds=second)) for second in range(3)]
    last = deletion(-1001, 1, POSTED + timedelta(seconds=2, microseconds=10))
    versions = [event.version for event in [*edits, last]]
    assert versions == sorted(set(versions))


def test_only_versions_of_one_second_are_moved() -> None:
    assert version_after(5, 4) == 5
    assert version_after(4, 5) == 6
    assert version_after(4, 4) == 5
    assert version_after(4, (1 << 20) + 5) == 4


def test_edits_of_one_second_keep_their_order() -> None:
    versions = Versions()
    states = [state("first")] + [state(f"edit {number}", POSTED) for number in range(30)]
    settled = [versions.settle(event).version for event in states]
    assert settled == sorted(set(settled))


def test_the_same_state_again_keeps_its_version() -> None:
    versions = Versions()
    events = [state("a", POSTED), state("b", POSTED), state("c", POSTED)]
    for event in events:
        last = versions.settle(event)
    assert versions.settle(events[-1]).version == last.version  # history tells the last state once more
    assert versions.settle(state("c", POSTED + timedelta(seconds=1))).version > last.version


def test_an_older_state_does_not_come_back() -> None:
    versions = Versions()
    newer = versions.settle(state("b", POSTED + timedelta(seconds=5)))
    assert versions.settle(state("a", POSTED)).version < newer.version
    assert versions.settle(state("b", POSTED + timedelta(seconds=5))) == newer


def test_messages_do_not_touch_each_other() -> None:
    versions = Versions()
    for number in range(1, 20):
        event = state("same", message_id=number)
        assert versions.settle(event) == event


@pytest.mark.requirement("GW-11")
def test_each_account_has_the_same_version_of_a_message_and_another_access_hash() -> None:
    photos = [Media(type="photo", id=number, access_hash=access) for number, access in ((7, 1), (7, 2), (8, 1))]
    ours, theirs, other = (version_of(Content(media=photo), POSTED, None) for photo in photos)
    assert ours == theirs != other
