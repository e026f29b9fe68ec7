"""What legacy_feed.toml holds."""

from __future__ import annotations

from typing import Annotated

import msgspec

from telegram_stack.database import DatabaseConfig, Port
from telegram_stack.observability.logging import LogLevel


class LegacyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[legacy]``: the database that is fed, and its tables with their schema.

    `password_file` holds nothing where the server asks for none; `word_file` holds the word by which the fence knows
    the feed. `signals_table` is empty where signals are not fed.
    """

    host: str
    port: Port = 5432
    name: str
    user: str
    password_file: str = "legacy-password"  # noqa: S105 - a file name
    word_file: str = "legacy-word"
    messages_table: str = "telegram_gateway.messages"
    signals_table: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


class FeedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file.

    `consumer` is what the legacy consumer calls itself in ``metadata.processed_by``: what was done here is marked so.
    A look for changes comes every `poll_seconds` while there are none; a batch has at most `batch_size` of them.
    """

    database: DatabaseConfig
    legacy: LegacyConfig
    consumer: str
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 500
    poll_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.5
    stop_seconds: Annotated[float, msgspec.Meta(gt=0, le=30)] = 25.0
    bind_address: str = "127.0.0.1"
    port: Port = 4012
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        if not self.consumer:
            raise ValueError("consumer is empty: nothing would show the legacy consumer what is done")
