"""What the gateway knows of each channel, and how far its events are complete.

Telegram counts the changes of a channel: an update carries ``pts``, the count after it, and ``pts_count``, how many
changes it is. While updates follow each other without a hole the channel is complete and its progress moves with them.
After a reconnect, after a hole, and after updates that came without a count, the channel is open: its progress stands
still until what is missing has been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from telegram_stack.spool import Channel

Policy = Literal["all", "registered"]


@dataclass(slots=True)
class _Open:
    """An open channel: what came live since, as one run of changes without a hole.

    Before the first counted update `end` is 0.
    """

    begin: int = 0
    end: int = 0
    last_message_id: int = 0
    gap: bool = False
    """Whether it was found that something is missing, not only that it may be."""


class Channels:
    """The channels by their marked id; progress is what `Channel` holds of it."""

    def __init__(self, known: Mapping[int, Channel], policy: Policy) -> None:
        """`known` is what the spool remembers. All of it is open: nobody knows yet what was missed."""
        self._known = dict(known)
        self._policy = policy
        self._open: dict[int, _Open] = {}
        self.gaps = 0
        """How often a channel's count at Telegram was found ahead of ours, for the metrics."""
        self.open_all()

    def __getitem__(self, channel_id: int) -> Channel:
        """The channel, a blank one when it is not known."""
        return self._known.get(channel_id) or Channel(channel_id=channel_id)

    @property
    def known(self) -> Mapping[int, Channel]:
        """Every channel that was ever seen or registered."""
        return self._known

    @property
    def open(self) -> list[int]:
        """The accepted channels of which something may be missing, in the order in which they became open."""
        return [channel_id for channel_id in self._open if self.accepts(channel_id)]

    def accepts(self, channel_id: int) -> bool:
        """Whether the channel's messages are taken."""
        registered = self[channel_id].registered
        if self._policy == "all":
            return registered is not False
        return registered is True or not any(channel.registered is not None for channel in self._known.values())

    def describe(self, channel_id: int, access_hash: int | None, title: str | None, username: str | None) -> Channel:
        """Take in what Telegram says of the channel; a channel seen for the first time is open."""
        known = self._known.get(channel_id)
        if known is None:
            self._open.setdefault(channel_id, _Open())
        return self._set(self[channel_id], access_hash=access_hash, title=title, username=username)

    def register(self, table: Mapping[int, bool]) -> list[Channel]:
        """Take in the registry: which channels it has, and whether they are active. Returns what changed."""
        changed = []
        for channel_id in {*table, *self._known}:
            if self[channel_id].registered != table.get(channel_id):
                complete_so_far = channel_id in self._known and self.accepts(channel_id)
                changed.append(self._set(self[channel_id], registered=table.get(channel_id)))
                if not complete_so_far:  # never seen, or its updates were not taken
                    self._open.setdefault(channel_id, _Open())
        return changed

    def open_all(self) -> None:
        """The connection is new: anything may have been missed, anywhere."""
        self._open = {channel_id: _Open() for channel_id in self._known}

    def reopen(self, channel_id: int) -> None:
        """Something of the channel was missed."""
        self._open[channel_id] = _Open(gap=True)
        self.gaps += 1

    def live(self, channel_id: int, message_ids: Iterable[int], pts: int, pts_count: int) -> Channel | None:
        """An update came; returns the channel's progress when it may move together with the update's events."""
        channel = self[channel_id]
        newest = max(message_ids, default=0)
        state = self._open.get(channel_id)
        hole = not pts or (channel.pts is not None and pts - pts_count > channel.pts)
        if state is None and (hole or channel_id not in self._known):
            if hole and channel_id in self._known:
                self.reopen(channel_id)
            else:
                self._open[channel_id] = _Open()
            state = self._open[channel_id]
        if state is not None:
            if pts and pts > state.end:
                if pts - pts_count != state.end:
                    state.begin, state.last_message_id = pts - pts_count, 0
                state.end = pts
                state.last_message_id = max(state.last_message_id, newest)
            return None
        if channel.pts is not None and pts <= channel.pts:
            return None
        return self._set(channel, pts=pts, last_message_id=max(channel.last_message_id or 0, newest))

    def compare(self, channel_id: int, pts: int | None) -> None:
        """Telegram's list has the channel at count `pts` (None where it does not tell).

        With our own count it is complete; a higher one means that something was missed, or is on its way.
        """
        channel = self[channel_id]
        if pts is None:
            return
        if channel_id not in self._open:
            if channel.pts is None or pts > channel.pts:
                self.reopen(channel_id)
        elif pts == channel.pts and channel.last_message_id is not None:
            self.read_to_end(channel_id, pts)
        elif channel.pts is not None and pts > channel.pts and not self._open[channel_id].gap:
            self._open[channel_id].gap = True
            self.gaps += 1

    def forget_count(self, channel_id: int) -> None:
        """Telegram does not know the channel's count that we have."""
        self._set(self[channel_id], pts=None)

    def read(self, channel_id: int, last_message_id: int, pts: int | None = None) -> Channel:
        """Everything up to `last_message_id`, and up to count `pts` where it is known, was read; there may be more."""
        channel = self[channel_id]
        last = max(channel.last_message_id or 0, last_message_id)
        return self._set(channel, last_message_id=last, pts=pts or channel.pts)

    def read_to_end(self, channel_id: int, pts: int | None) -> Channel:
        """There was nothing more, when the channel's count was `pts` (None where the server does not tell).

        The channel is complete, unless a later hole is known already.
        """
        channel = self[channel_id]
        state = self._open.get(channel_id, _Open())
        if not state.end:
            self._open.pop(channel_id, None)
            return self._set(channel, pts=pts or channel.pts)
        if pts is not None and state.begin > pts:
            return self._set(channel, pts=pts)
        self._open.pop(channel_id, None)
        return self._set(
            channel,
            pts=max(pts or 0, state.end),
            last_message_id=max(channel.last_message_id or 0, state.last_message_id) or None,
        )

    def restore(self, channel: Channel) -> None:
        """Take the channel's progress back to `channel`: what followed could not be kept."""
        self._known[channel.channel_id] = channel

    def _set(self, channel: Channel, **changes: object) -> Channel:
        changed = msgspec.structs.replace(channel, **changes)
        self._known[channel.channel_id] = changed
        return changed
