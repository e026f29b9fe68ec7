"""The seam between the worker and what it works for: a handler decides, and writes in the worker's transaction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from telegram_stack.database import Connection
    from telegram_stack.events import Event

ENTRY_POINTS = "telegram_stack.handlers"
"""Group of the entry points; each is a callable without arguments that returns a `Handler`."""


@dataclass(frozen=True)
class Effect:
    """What a handler makes of one event.

    `status` and `reason` go into the message's processing state, `metadata` too (no text of the message belongs there).
    `value` is what the handler's own `store` writes; nothing is stored for an ignored event.
    """

    status: Literal["published", "ignored"]
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    value: Any = None


class Handler(Protocol):
    """One kind of work. The worker calls it for the state of a message that is newest in its batch."""

    def handle(self, event: Event) -> Effect:
        """Decide what `event`, new or edited, means. Pure and quick.

        An exception is a failure: the message comes again after 1 s, 10 s and 60 s, then is given up and recorded.
        """

    async def store(self, connection: Connection, effects: Sequence[tuple[Event, Effect]]) -> None:
        """Write the published effects of a batch, sorted by key, one for a key, in the transaction of `connection`.

        Called only for versions never stored before. Must neither commit nor keep session state.
        """


class UnknownHandlerError(Exception):
    """No package that is installed brings a handler of that name."""


def load_handler(name: str, path: str = "") -> Handler:
    """The handler that an installed package registers as `name`; raises UnknownHandlerError.

    `path` is a folder with further packages (``pip install --target``), or empty.
    """
    if path and path not in sys.path:
        sys.path.append(path)
    found = entry_points(group=ENTRY_POINTS)
    for entry in found:
        if entry.name == name:
            handler: Handler = entry.load()()
            return handler
    raise UnknownHandlerError(
        f'handler = "{name}" is not installed; installed: {", ".join(sorted(found.names)) or "none"}'
    )
