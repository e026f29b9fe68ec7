"""A message's row id: a UUID that is its key in another form, so that no index is needed to find the row again."""

from __future__ import annotations

from uuid import UUID

_MESSAGE_BITS = 58
_CHANNEL_MASK = (1 << 64) - 1


def row_id(channel_id: int, message_id: int) -> UUID:
    """The UUID (version 8, RFC 9562: the 122 free bits are ours) of a message.

    Raises ValueError for what is no 64-bit channel id or no message id of at most 58 bits.
    """
    if not (-(1 << 63) <= channel_id < 1 << 63 and 0 <= message_id < 1 << _MESSAGE_BITS):
        raise ValueError(f"no key of a message: {channel_id}, {message_id}")
    payload = (channel_id & _CHANNEL_MASK) << _MESSAGE_BITS | message_id
    high, middle, low = payload >> 74, payload >> 62 & 0xFFF, payload & (1 << 62) - 1
    return UUID(int=high << 80 | 0x8 << 76 | middle << 64 | 0b10 << 62 | low)


def key_of(value: UUID) -> tuple[int, int] | None:
    """Channel and message id behind `value`; None when `row_id` never made it."""
    if value.version != 8:
        return None
    number = value.int
    payload = (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & (1 << 62) - 1
    channel = payload >> _MESSAGE_BITS
    return channel - (1 << 64) if channel >> 63 else channel, payload & (1 << _MESSAGE_BITS) - 1
