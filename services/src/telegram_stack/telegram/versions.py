"""Edits of one message within one second, in the order in which they came.

Telegram dates edits by the second; `version_of` orders two of the same second by their content's hash, which is as good
as chance. Who sees them come knows better.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from telegram_stack.events import Content, Event, version_after

_REMEMBERED = 10_000


class Versions:
    """Remembers the last state of the most recent messages."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[int, int], tuple[int, Content | None]] = OrderedDict()

    def settle(self, event: Event) -> Event:
        """The event, with a version above the last one's when it shows something else of the same second.

        A deletion has no date but that of its receipt: told again, it keeps the version it had.
        """
        previous, content = self._last.get(event.key, (0, None))
        if event.kind == "delete" and content is None and previous:
            return msgspec.structs.replace(event, version=previous)
        version = version_after(event.version, previous)
        if content == event.content and version == previous + 1:
            version = previous  # the same state once more, as history tells it
        if version >= previous:
            self._last[event.key] = (version, event.content)
            self._last.move_to_end(event.key)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
        return event if version == event.version else msgspec.structs.replace(event, version=version)
