"""Query parameters and bodies, checked; every fault of a query is reported at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import msgspec
from starlette.requests import Request

from telegram_stack.api.errors import ApiError, FieldError, invalid

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

STATUSES = (
    "received",
    "retrying",
    "published",
    "ignored",
    "queued",
    "failed",
    "reprocess_pending",
    "reprocessed",
    "deleted",
)
MAX_LIMIT = 10_000
MAX_OFFSET = 10_000_000
MAX_BODY = 1 << 20
BODY_SECONDS = 10.0
_CHANNEL_BASE = 1_000_000_000_000
_BIGINT = 1 << 63


@dataclass(frozen=True)
class Reader(Generic[T]):
    """Reads a text, or raises ValueError with the reason; `schema` (JSON Schema) says the same to clients."""

    read: Callable[[str], T]
    schema: dict[str, Any]

    def __call__(self, text: str) -> T:
        """What `text` means."""
        return self.read(text)


@dataclass(frozen=True)
class Param(Generic[T]):
    """A parameter by name, as it is read and as it is documented."""

    name: str
    reader: Reader[T]
    description: str
    default: Any = None
    many: bool = False
    required: bool = False
    place: Literal["query", "path", "header"] = "query"

    def of(self, query: Query) -> T:
        """Its value, or the default."""
        if self.required:
            query.required(self.name)
        value: T = query.one(self.name, self.reader, self.default)
        return value

    def all(self, query: Query) -> list[T]:
        """Its values; none when it is absent."""
        return query.many(self.name, self.reader)

    def in_path(self, request: Request) -> T:
        """Its value in the path. Raises ApiError 422."""
        return from_path(request, self.name, self.reader)


class Values(Protocol):
    """Query parameters, or headers."""

    def getlist(self, key: str) -> list[str]:
        """All values of a name."""


class Query:
    """Takes parameters one by one and remembers what was wrong; `finish` raises it. Empty ones count as absent."""

    def __init__(self, params: Values) -> None:
        self._params = params
        self._errors: list[FieldError] = []

    def one(self, name: str, read: Callable[[str], T], default: T) -> T:
        """The parameter's value by `read`, which raises ValueError with the reason."""
        values = self._read(name, read, split=False)
        if len(values) > 1:
            self._errors.append(FieldError(name, "is given more than once"))
        return values[0] if values else default

    def many(self, name: str, read: Callable[[str], T]) -> list[T]:
        """All values: the parameter may be repeated, and each may be a comma list."""
        return self._read(name, read, split=True)

    def required(self, name: str) -> None:
        """Complain when there is no such parameter."""
        if not any(value.strip() for value in self._params.getlist(name)):
            self._errors.append(FieldError(name, "is required"))

    def refuse(self, name: str, reason: str, *, when: bool) -> None:
        """Complain about a parameter that does not go with the others."""
        if when:
            self._errors.append(FieldError(name, reason))

    def finish(self) -> None:
        """Raise ApiError 422 when anything was wrong."""
        if self._errors:
            raise invalid(self._errors)

    def _read(self, name: str, read: Callable[[str], T], *, split: bool) -> list[T]:
        given = self._params.getlist(name)
        texts = [part for value in given for part in value.split(",")] if split else given
        values: list[T] = []
        for text in filter(None, (text.strip() for text in texts)):
            try:
                values.append(read(text))
            except ValueError as error:
                self._errors.append(FieldError(name, str(error)))
        return values


def integer(low: int, high: int) -> Reader[int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return Reader(read, {"type": "integer", "minimum": low, "maximum": high})


def _channel_id(text: str) -> int:
    """A channel's marked id (``-100…``); without the mark it is added, as some clients leave it out."""
    try:
        value = integer(1 - _BIGINT, _BIGINT - 1)(text)
    except ValueError:
        raise ValueError("must be a channel id such as -1001234567890") from None
    if value == 0:
        raise ValueError("must be a channel id such as -1001234567890")
    return -_CHANNEL_BASE - value if 0 < value < _CHANNEL_BASE else value


channel_id = Reader(_channel_id, {"type": "string", "pattern": "^-?[1-9][0-9]{0,17}$", "examples": ["-1001234567890"]})
message_id = integer(1, _BIGINT - 1)


def _moment(text: str) -> datetime:
    """A time of ISO 8601; UTC where it names no zone. A ``+`` that became a space in the URL is put back."""
    try:
        value = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise ValueError("must be a time such as 2026-05-04T12:00:00Z") from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


moment = Reader(_moment, {"type": "string", "format": "date-time"})


def _status(text: str) -> str:
    if text not in STATUSES:
        raise ValueError(f"must be one of {', '.join(STATUSES)}")
    return text


status = Reader(_status, {"type": "string", "enum": list(STATUSES)})


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError("must be true or false")
    return text.lower() in {"true", "1"}


boolean = Reader(_boolean, {"type": "boolean"})


def words(limit: int) -> Reader[str]:
    """A reader of texts of at most `limit` characters."""

    def read(text: str) -> str:
        if len(text) > limit or "\0" in text:
            raise ValueError(f"must have at most {limit} characters and no NUL")
        return text

    return Reader(read, {"type": "string", "maxLength": limit})


def one_of(*choices: str) -> Reader[str]:
    """A reader of a word among `choices`, without regard to case."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return Reader(read, {"type": "string", "enum": list(choices)})


def _row_name(text: str) -> str:
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return text
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("must be a UUID, or the number that a legacy table gave it") from None


row_name = Reader(
    _row_name,
    {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "pattern": "^[0-9]{1,19}$"}]},
)


def from_path(request: Request, name: str, read: Callable[[str], T]) -> T:
    """The path's parameter `name`; raises ApiError 422."""
    try:
        return read(request.path_params[name])
    except ValueError as error:
        raise invalid([FieldError(name, str(error))]) from error


async def content(request: Request) -> bytes:
    """The body as it came. Raises ApiError 413, or 408."""
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                found += chunk
                if len(found) > MAX_BODY:
                    raise ApiError(413, "too_large", f"The body has more than {MAX_BODY} bytes")
    except TimeoutError:
        raise ApiError(408, "body_timeout", f"The body did not come within {BODY_SECONDS:g} s") from None
    return bytes(found)


async def body(request: Request, kind: type[S], *, may_be_empty: bool = False) -> S:
    """The JSON body as `kind`; no body is a blank one where it `may_be_empty`.

    Raises ApiError 422 that names the member, 413, or 408.
    """
    given = await content(request)
    try:
        return msgspec.json.decode(given or b"{}" if may_be_empty else given, type=kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        raise invalid([FieldError(place.rstrip("`").lstrip(".") or "body", reason)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid([FieldError("body", "is not JSON")]) from error
