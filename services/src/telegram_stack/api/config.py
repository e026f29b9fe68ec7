"""What api.toml holds."""

from __future__ import annotations

from typing import Annotated

import msgspec

from telegram_stack import cache
from telegram_stack.database import DatabaseConfig, Port
from telegram_stack.observability.logging import LogLevel

Seconds = Annotated[float, msgspec.Meta(gt=0, le=60)]


class CacheConfig(cache.CacheConfig, frozen=True, kw_only=True):
    """Section ``[cache]`` of the API."""

    user: str = "telegram_api"
    timeout: Seconds = 0.1


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[gateway]``: where the MTProto gateway's own HTTP port is.

    `accounts` has the port, on the same host, of each further account's gateway.
    """

    host: str = "127.0.0.1"
    port: Port = 4006
    accounts: dict[str, Port] = {}
    timeout: Seconds = 2.0


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[queue]``: RabbitMQ as its metrics port shows it; the API neither publishes nor consumes."""

    enabled: bool = True
    host: str = "127.0.0.1"
    metrics_port: Port = 15692
    timeout: Seconds = 2.0


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[worker]``: where the worker's figures are, for the console."""

    host: str = "127.0.0.1"
    port: Port = 4011
    timeout: Seconds = 2.0


class ComponentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``[[components]]``: what runs beside the API, for the console.

    It is well while ``http://host:port/path`` answers without an error; one that is not `required` may be absent.
    With `tls` it is asked by TLS, and well, too, when it wants to know who asks: nothing is told to it.
    """

    name: str
    host: str
    port: Port
    path: str = "/"
    tls: bool = False
    unit: str = ""
    hint: str = ""
    required: bool = True


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `consumer` is the one whose processing state fills ``status`` in the answers.

    `tokens_file` has a line ``name:scope:token`` for each client, scope ``read``, ``write`` or ``admin``.
    `rate_limit` is in requests a minute and client; tokens named in `rate_limit_exempt` have none. `cors_origins` are
    the pages (``https://host:port``) whose scripts may read answers. `console_session_hours`: how long a sign-in to the
    console lasts. `migration_file` is where a migration tells how far it is; empty where nobody would look.
    """

    database: DatabaseConfig
    cache: CacheConfig = CacheConfig()
    gateway: GatewayConfig = GatewayConfig()
    queue: QueueConfig = QueueConfig()
    worker: WorkerConfig = WorkerConfig()
    components: tuple[ComponentConfig, ...] = ()
    console_session_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 12
    migration_file: str = ""
    tokens_file: str = "tokens"
    bind_address: str = "127.0.0.1"
    port: Port = 4010
    consumer: str = "signals"
    rate_limit: Annotated[int, msgspec.Meta(ge=1)] = 300
    rate_limit_exempt: tuple[str, ...] = ()
    cors_origins: tuple[Annotated[str, msgspec.Meta(pattern=r"^https?://[^/*\s]+$")], ...] = ()
    log_level: LogLevel = "info"
