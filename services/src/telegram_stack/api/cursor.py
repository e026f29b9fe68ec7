"""Where a page ended, in a form that clients hand back without reading it."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta

import msgspec

from telegram_stack.api.params import Reader
from telegram_stack.api.shapes import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(msgspec.Struct, array_like=True, frozen=True):
    """The last message of a page: date in microseconds since the epoch, number and channel."""

    moment: int
    message_id: int
    channel_id: int

    @property
    def date(self) -> datetime:
        """The message's date."""
        return _EPOCH + timedelta(microseconds=self.moment)


_decoder = msgspec.json.Decoder(Place)


def behind(message: Message) -> str:
    """The cursor of what comes behind `message`."""
    moment = (message.telegram_date - _EPOCH) // timedelta(microseconds=1)
    place = Place(moment, int(message.message_id), int(message.channel_id))
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def _read(text: str) -> Place:
    try:
        place = _decoder.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        place.date.isoformat()
    except (binascii.Error, msgspec.MsgspecError, ValueError, OverflowError, OSError):
        raise ValueError("must be a nextCursor of an earlier answer") from None
    if not (-(1 << 63) <= place.channel_id < 1 << 63 and 0 < place.message_id < 1 << 63):
        raise ValueError("must be a nextCursor of an earlier answer")
    return place


cursor = Reader(_read, {"type": "string", "maxLength": 200})
