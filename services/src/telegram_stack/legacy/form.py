"""A message of ours in the columns of a legacy row. No server needed here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from telegram_stack.events import MessageType

CONSUMER_KEYS = ("processed_by", "processed_at", "signal_asset", "error", "reason", "ignored")
"""What the legacy consumer writes into `metadata`; ``telegram.legacy_consumer_keys()`` has the same."""

# Our states in the legacy words, and whether its consumer must leave the message alone. What is still being tried here
# is as new there: after a rollback nobody else would do it.
_STATES = {
    "received": ("received", False),
    "retrying": ("received", False),
    "queued": ("received", False),
    "reprocess_pending": ("reprocess_pending", False),
    "failed": ("failed", False),
    "published": ("published", True),
    "ignored": ("published", True),
    "reprocessed": ("reprocessed", True),
    "deleted": ("deleted", True),
}
_OUR_TYPES = frozenset(get_args(MessageType))
_LEGACY_TYPE = "channel_post"
_MARK = 1_000_000_000_000


def marked(channel: str) -> int | None:
    """Telegram's marked id of a channel as a legacy table has it, with -100 or without; None: it is none."""
    if re.fullmatch(r"-[1-9][0-9]{0,14}", channel):
        return int(channel)
    if re.fullmatch(r"[1-9][0-9]{0,11}", channel):
        return -_MARK - int(channel)
    return None


def forms(channel_id: int) -> list[str]:
    """All that a legacy table may call the channel, its marked id first."""
    bare = -channel_id - _MARK
    return [str(channel_id), str(bare)] if bare > 0 else [str(channel_id)]


def legacy_form(document: Mapping[str, Any], name: Callable[[int], str], consumer: str) -> dict[str, Any]:
    """A row of ``telegram.legacy_documents`` as the statements of `tables` read it.

    `name` says what the legacy table calls a channel. `status` is None where nothing was done here: then that of the
    legacy row stays.
    """
    channel_id = document["channel_id"]
    status, processed = _STATES[document["state"]] if document["state"] else (None, False)
    if document["deleted_at"]:
        status = "deleted"
    metadata = dict(document["metadata"])
    if not processed:
        metadata = {key: value for key, value in metadata.items() if key not in CONSUMER_KEYS[:2]}
    else:
        metadata["processed_by"] = consumer
    if document["state"] == "ignored":
        metadata["ignored"] = True
    telegram = metadata.get("telegram")
    if isinstance(telegram, dict) and telegram.get("messageType") in _OUR_TYPES:
        metadata["telegram"] = {**telegram, "messageType": _LEGACY_TYPE}
    return {
        **{name: value for name, value in document.items() if name not in ("signal", "state")},
        "channel_id": name(channel_id),
        "forms": forms(channel_id),
        "status": status,
        "handled": document["state"] is not None,
        "processed": processed,
        "metadata": metadata,
        "message_type": _LEGACY_TYPE if document["message_type"] in _OUR_TYPES else document["message_type"],
        # Never changes, so that a row that comes twice has the same key.
        "created_at": document["telegram_date"],
    }


def signal_form(document: Mapping[str, Any], name: Callable[[int], str]) -> dict[str, Any]:
    """The signal of such a row, as the statements of `tables` read it."""
    signal = document["signal"]
    return {**signal, "channel": name(signal["channel_id"]), "forms": forms(signal["channel_id"])}


def bounds(documents: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """The earliest and the latest `created_at` that a legacy row of these may have, as PostgreSQL reads them."""
    times = [row["created_at"] for document in documents for row in (document, *document["legacy_rows"])]
    finite = sorted((time for time in times if "infinity" not in time), key=datetime.fromisoformat)
    return (
        "-infinity" if "-infinity" in times else finite[0],
        "infinity" if "infinity" in times else finite[-1],
    )
