"""Row ids: a key in another form."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_stack.ids import key_of, row_id


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, (1 << 58) - 1))
def test_there_and_back(channel_id: int, message_id: int) -> None:
    value = row_id(channel_id, message_id)
    assert UUID(str(value)).version == 8
    assert key_of(value) == (channel_id, message_id)


def test_others_are_not_ours() -> None:
    assert key_of(uuid4()) is None


@pytest.mark.parametrize(("channel_id", "message_id"), [(1 << 63, 1), (-1, -1), (-1, 1 << 58)])
def test_refuses_what_is_no_key(channel_id: int, message_id: int) -> None:
    with pytest.raises(ValueError, match="no key"):
        row_id(channel_id, message_id)
