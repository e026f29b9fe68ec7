"""What the store has of a channel of which the spool knows nothing: after a migration, or on a host that stood by.

Such a channel begins behind its newest stored message, however much came since, and not with its newest few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class StoreAwayError(Exception):
    """The store does not answer; the same again later makes sense."""


class Span(NamedTuple):
    """The numbers of the oldest and the newest message that is stored, by their dates."""

    oldest: int
    newest: int


class Known(NamedTuple):
    """A stored message. `adopted_text` is that of one that was taken over from elsewhere and never edited since."""

    deleted: bool
    adopted_text: str | None


class Stored(Protocol):
    """Whoever can tell what is stored."""

    async def span(self, channel_id: int, below: int | None = None) -> Span | None:
        """What there is of the channel, of numbers `below` one where that is given; None without any.

        Raises StoreAwayError.
        """

    async def messages(self, channel_id: int, first: int, last: int) -> Mapping[int, Known]:
        """The messages from `first` to `last`. Raises StoreAwayError."""


class NothingStored:
    """There is no store that anything could be in."""

    async def span(self, channel_id: int, below: int | None = None) -> Span | None:
        """There is nothing of it."""
        return None

    async def messages(self, channel_id: int, first: int, last: int) -> Mapping[int, Known]:
        """There is none."""
        return {}
