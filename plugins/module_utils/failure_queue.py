# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The legacy gateway's failure queue: a file with a message a line, read in windows. No server needed here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .legacy_source import COLUMNS as LEGACY_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINES_PER_WINDOW = 5_000
LONGEST_LINE = 1 << 20

COLUMNS = ("legacy_id", *LEGACY_COLUMNS[1:])
"""In the order of the type telegram.legacy_row."""
_TIMES = frozenset(name for name in COLUMNS if name.endswith("_at")) | {"telegram_date"}
_ALSO = {"channel_id": "chatId", "telegram_date": "date", "received_at": "timestamp"}
"""Other names of a field."""
_ENVELOPES = ("message", "payload", "data")


class BrokenLine(Exception):
    """A line that is no message; the text says why."""


class Window(NamedTuple):
    """Some lines that follow each other; `first` is the number of the first one, from 1."""

    first: int
    lines: list[bytes]

    @property
    def start(self) -> str:
        """How the window is called where it is recorded."""
        return f"line {self.first:012d}"

    @property
    def checksum(self) -> str:
        """Changes with any of the lines."""
        return sha256(b"\n".join(self.lines)).hexdigest()


def windows(path: str) -> Iterator[Window]:
    """The file's windows, the last one shorter. Raises OSError."""
    with Path(path).open("rb") as file:
        first, lines = 1, []
        for line in file:
            lines.append(line.rstrip(b"\r\n"))
            if len(lines) == LINES_PER_WINDOW:
                yield Window(first, lines)
                first, lines = first + len(lines), []
        if lines:
            yield Window(first, lines)


def row(line: bytes) -> tuple[str | int | None, ...]:
    """A line as `COLUMNS`. Raises BrokenLine."""
    if len(line) > LONGEST_LINE:
        raise BrokenLine(f"the line has {len(line)} bytes")
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BrokenLine("the line is cut off or no JSON") from error
    if not isinstance(found, dict):
        raise BrokenLine("the line is no message")
    message = _message(_clean(found))
    given = {name: _field(message, name) for name in COLUMNS}
    given["legacy_id"] = f"queue:{sha256(line).hexdigest()[:32]}"
    return tuple(_value(name, value) for name, value in given.items())


def _message(found: dict[str, Any]) -> Mapping[str, Any]:
    """The message itself, where it stands in an envelope."""
    if _field(found, "channel_id") is None:
        for name in _ENVELOPES:
            inner = found.get(name)
            if isinstance(inner, dict) and _field(inner, "channel_id") is not None:
                return inner
    return found


def _field(message: Mapping[str, Any], name: str) -> Any:
    """A field by its name in the table, in camelCase, or another that is in use."""
    head, *tail = name.split("_")
    for key in (name, head + "".join(word.capitalize() for word in tail), _ALSO.get(name)):
        if key and message.get(key) is not None:
            return message[key]
    return None


def _value(name: str, value: Any) -> str | int | None:
    if value is None:
        return None
    if name in _TIMES:
        return _time(value)
    if name in ("media_refs", "metadata"):
        return json.dumps(value)
    if name == "thread_id":
        text = str(value)
        return int(text) if text.lstrip("-").isdecimal() and text.isascii() and len(text) < 19 else None
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)


def _time(value: Any) -> str | None:
    """A time as ISO text or as seconds or milliseconds since the epoch; None for what is none."""
    try:
        if isinstance(value, int | float):
            found = datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
        else:
            found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _clean(value: Any) -> Any:
    """Without what no database keeps in a text: zero characters and halves of a pair."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
