"""What worker.toml holds."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from telegram_stack import cache
from telegram_stack.database import DatabaseConfig, Port
from telegram_stack.observability.logging import LogLevel
from telegram_stack.topology import consumer_queue


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[queue]``: RabbitMQ. `prefetch` bounds what the worker holds unacknowledged."""

    password_file: str = "rabbitmq-password"  # noqa: S105 - a file name
    user: str = "telegram_worker"
    host: str = "127.0.0.1"
    port: Port = 5672
    vhost: str = "telegram"
    prefetch: Annotated[int, msgspec.Meta(ge=10, le=5000)] = 100


class CacheConfig(cache.CacheConfig, frozen=True, kw_only=True):
    """Section ``[cache]``; without it the database is asked for everything."""

    user: str = "telegram_worker"


class FilterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[filter]``: which messages reach the handler; an empty setting lets everything through.

    `text_matches` and `text_excludes` are regular expressions, searched in the text without regard to case.
    """

    channels: tuple[int, ...] = ()
    message_types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    text_matches: str = ""
    text_excludes: str = ""

    def __post_init__(self) -> None:
        for key in ("text_matches", "text_excludes"):
            try:
                re.compile(getattr(self, key))
            except re.error as error:
                raise ValueError(f"filter.{key} is no regular expression: {error}") from error


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file.

    `mode`: ``queue`` takes messages from the broker; ``polling`` from cache and database each `poll_seconds`;
    ``hybrid`` from the broker, and polls each `net_seconds` for what was missed, or each `poll_seconds` while the
    broker is away. Each `net_seconds` a poll asks the database, whatever the cache says.
    `consumer` names the queue and the rows of ``telegram.processing``; `handler` an entry point of the group
    ``telegram_stack.handlers``, `handler_path` a folder where its package may be as well.
    A batch has at most `batch_size` messages; from the queue it waits for them until `linger_ms` after the first
    of them came.
    `stop_seconds` is what a stop may take before unfinished messages are left for the next start.
    """

    database: DatabaseConfig
    queue: QueueConfig = QueueConfig()
    cache: CacheConfig | None = None
    filter: FilterConfig = FilterConfig()
    mode: Literal["queue", "polling", "hybrid"] = "queue"
    consumer: str = "signals"
    handler: str = "signals"
    handler_path: str = ""
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    poll_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 5.0
    net_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30.0
    linger_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 8.0
    stop_seconds: Annotated[float, msgspec.Meta(gt=0, le=30)] = 25.0
    bind_address: str = "127.0.0.1"
    metrics_port: Port = 4011
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        consumer_queue(self.consumer)
