"""Which message is meant: Telegram's number, a row id of ours, or one of the legacy tables."""

from __future__ import annotations

from uuid import UUID

from telegram_stack.api import params, queries
from telegram_stack.api.errors import ApiError, FieldError, invalid
from telegram_stack.database import Connection
from telegram_stack.ids import key_of


def own_key(name: str) -> tuple[int, int] | None:
    """The key in a row id that is ours; None for one of the legacy tables."""
    return key_of(UUID(name)) if "-" in name else None


def read_ids(given: list[int | str]) -> list[tuple[int | str, str | int]]:
    """What was given beside what it means: a row id, else Telegram's message id."""
    meant: list[tuple[int | str, str | int]] = []
    errors = []
    for position, item in enumerate(given):
        try:
            is_row = isinstance(item, str) and "-" in item[1:]
            meant.append((item, params.row_name(str(item)) if is_row else params.message_id(str(item))))
        except ValueError:
            errors.append(FieldError(f"messageIds[{position}]", "must be a message id or a row id"))
    if errors:
        raise invalid(errors)
    return meant


async def resolve(
    connection: Connection, ids: list[tuple[int | str, str | int]], channel: int | None
) -> dict[int | str, tuple[int, int]]:
    """The key of each id that is stored; raises ApiError 409 where a message id fits several channels."""
    rows = {name: own_key(name) for _, name in ids if isinstance(name, str)}
    old = await queries.find_legacy_ids(connection, [name for name, key in rows.items() if key is None])
    exact = old | {name: key for name, key in rows.items() if key is not None}
    numbers = [meant for _, meant in ids if isinstance(meant, int)]
    found = await queries.find_keys(connection, numbers + [message for _, message in exact.values()], channel)
    by_number: dict[int, list[tuple[int, int]]] = {}
    for key in found:
        by_number.setdefault(key[1], []).append(key)
    ambiguous = [
        FieldError(f"messageIds[{position}]", "is in several channels: give channelId, or row ids")
        for position, (_, meant) in enumerate(ids)
        if isinstance(meant, int) and len(by_number.get(meant, ())) > 1
    ]
    if ambiguous:
        raise ApiError(409, "ambiguous", "Some message ids are in several channels: give channelId", ambiguous)
    stored = set(found)
    keys: dict[int | str, tuple[int, int]] = {}
    for given, meant in ids:
        match = exact.get(meant) if isinstance(meant, str) else next(iter(by_number.get(meant, ())), None)
        if match in stored:
            keys[given] = match
    return keys


async def find_key(connection: Connection, name: str) -> tuple[int, int] | None:
    """The key behind a row id; None when it is of no message that ever was."""
    return own_key(name) or (await queries.find_legacy_ids(connection, [name])).get(name)
