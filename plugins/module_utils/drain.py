# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much waits in each stage of the stack, read from what the stages answer: no server needed here."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from .health import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

Stage = dict[str, Any]
"""`stage` is its name, `waiting` how much is not through; whatever else is told is for the reader."""


def of_gateway(health: Any, sinks: Sequence[str]) -> list[Stage]:
    """The spool and each of `sinks` (all without any) of the gateway's C(/health). Raises NoAnswer."""
    try:
        found = [_stage("gateway: spool", health["spoolPending"], recovering=health["recovering"])]
        for name in sinks or sorted(health["sinks"]):
            sink = health["sinks"][name]
            found.append(
                _stage(f"gateway: {name}", sink["lag"], quarantined=sink["quarantined"], reason=sink.get("reason", ""))
            )
    except (KeyError, TypeError) as error:
        raise NoAnswer(f"the gateway's /health does not tell {error}") from error
    return found


def of_queues(queues: Any, patterns: Sequence[str]) -> list[Stage]:
    """Each queue that one of `patterns` matches, of RabbitMQ's list. Raises NoAnswer where a pattern matches none."""
    if not isinstance(queues, list):
        raise NoAnswer("RabbitMQ's management interface listed no queues")
    found = {}
    for pattern in patterns:
        matching = [queue for queue in queues if fnmatch.fnmatchcase(str(queue.get("name", "")), pattern)]
        if not matching:
            raise NoAnswer(
                f"RabbitMQ has no queue {pattern}", "the worker declares its queues: name those of your consumer"
            )
        for queue in matching:
            name = queue["name"]
            found[name] = _stage(
                f"queue: {name}",
                queue.get("messages"),
                ready=queue.get("messages_ready"),
                unacknowledged=queue.get("messages_unacknowledged"),
            )
    return list(found.values())


def of_feed(document: Any) -> Stage:
    """A feed that tells its `backlog` and the `age` of the oldest in seconds. Raises NoAnswer."""
    if not isinstance(document, dict):
        raise NoAnswer("the feed tells no backlog")
    return _stage("feed", document.get("backlog"), age=document.get("age"))


def of_consumer(name: str, waiting: Any) -> Stage:
    """What `name` has still to do. Raises NoAnswer."""
    return _stage(f"consumer: {name}", waiting)


def _stage(name: str, waiting: Any, **further: Any) -> Stage:
    """Raises NoAnswer for what is no count: that is no zero."""
    if isinstance(waiting, bool) or not isinstance(waiting, int) or waiting < 0:
        raise NoAnswer(f"{name} tells no count ({waiting!r})", "right after a start: ask again in 10 s")
    return {"stage": name, "waiting": waiting, "drained": waiting == 0, **further}
