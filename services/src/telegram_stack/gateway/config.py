"""What gateway.toml holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from telegram_stack.database import DatabaseConfig, Port
from telegram_stack.gateway.lease import LEAVE_SECONDS
from telegram_stack.observability.logging import LogLevel
from telegram_stack.sinks.cache import CacheConfig
from telegram_stack.sinks.push import PushConfig
from telegram_stack.sinks.queue import QueueConfig

Seconds = Annotated[float, msgspec.Meta(gt=0, le=60)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Account = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,30}$")]


class TelegramConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[telegram]``: the application of my.telegram.org, the session, and which channels are taken.

    `api_hash_file` and `session_key_file` name credentials; the session's key is a Fernet key (32 bytes, base64).
    `channels`: ``all`` takes every channel the account is in, but for those set inactive in ``telegram.channels``;
    ``registered`` takes the active ones of that table only, and every channel while the table is empty.
    `history_depth` is how many of the newest messages a channel of which nothing is stored brings along.
    `edit_window` is how many messages below the cursor are read again for edits and deletions where a channel has
    changed too much for Telegram to list the changes; 0 leaves that out. `recovery_seconds` is how often (give or take
    a fifth) every channel's count is compared with Telegram's while the connection stands, `recovery_concurrency` how
    many channels are caught up at once.
    With more than `update_queue_limit` updates that nobody has looked at the gateway disconnects and reads them from
    history: its memory has a bound.
    `server_*` point at another MTProto server than Telegram's own; all four belong together. `server_public_key`
    is its RSA key in PEM.
    """

    api_id: Count
    api_hash_file: str = "api-hash"
    session_file: str = "/var/lib/telegram-gateway/session"
    session_key_file: str = "session-key"
    channels: Literal["all", "registered"] = "all"
    history_depth: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 100
    edit_window: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 1000
    recovery_seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 300.0
    recovery_concurrency: Annotated[int, msgspec.Meta(ge=1, le=50)] = 4
    update_queue_limit: Count = 10_000
    server_address: str | None = None
    server_port: Port | None = None
    server_dc_id: Annotated[int, msgspec.Meta(ge=1, le=5)] | None = None
    server_public_key: str | None = None
    connect_timeout: Seconds = 10.0
    watchdog_seconds: Seconds = 15.0

    def __post_init__(self) -> None:
        custom = {
            name: getattr(self, name) for name in ("server_address", "server_port", "server_dc_id", "server_public_key")
        }
        missing = [name for name, value in custom.items() if value is None]
        if missing and len(missing) < len(custom):
            raise ValueError(f"an own server needs telegram.{', telegram.'.join(missing)} as well")


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[proxy]``: what the gateway reaches Telegram through.

    `secret_file` names a credential: the password of `user` at a SOCKS5 proxy that asks for one, an MTProxy's secret.
    """

    kind: Literal["none", "socks5", "mtproxy"] = "none"
    host: str | None = None
    port: Port | None = None
    user: str | None = None
    secret_file: str | None = None

    def __post_init__(self) -> None:
        needed = {"none": (), "socks5": ("host", "port"), "mtproxy": ("host", "port", "secret_file")}[self.kind]
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"proxy.kind {self.kind} needs proxy.{', proxy.'.join(missing)} as well")
        if self.user is not None and self.secret_file is None:
            raise ValueError("proxy.user needs proxy.secret_file, the credential with the password, as well")


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[spool]``: the SQLite file between Telegram and the sinks.

    `linger_ms` is how long a commit waits for more events in a flood (the calmer, the shorter), `group_limit` how many
    it takes at most.
    `retain` events stay behind the slowest sink: what comes twice within them is recognised.
    `reserve_mb` of the disk are kept beside it, to be given back for trimming when the disk is full; 0 keeps none.
    `pending_limit` events wait for a spool that cannot be written (full disk); above it updates are not taken,
    and history brings them later.
    """

    path: str = "/var/lib/telegram-gateway/spool.db"
    linger_ms: Annotated[float, msgspec.Meta(ge=0, le=100)] = 3.0
    group_limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    retain: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    reserve_mb: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 16
    pending_limit: Count = 50_000


class PhotosConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[photos]``: those asked for stay in ``photo_cache`` beside the spool, at most `cache_mb` megabytes."""

    cache_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 512


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `stop_seconds` is what a stop may take until the sinks are left to the next start.

    `account` is the name of a further account, which has a gateway of its own; the first one's has none. It takes the
    channels that ``telegram.channels`` gives to that name, and enters new ones with it. The first one's names the
    further ones in `other_accounts`, and takes every channel that is given to none of them.
    `token_file` names a credential: with it every request but ``/health`` needs it as bearer token. Beyond loopback and
    without it only ``/health`` and ``/metrics`` are answered.
    `lease_seconds`: for hosts that stand by for each other with one session; at least 20. The one that has the lease in
    the database connects, and leaves Telegram when it cannot renew it. 0: no other host has the session.
    `late_seconds` is how long an event may wait for a sink until health calls it degraded.
    `batch_size` is what a sink takes at once. Between two batches queue and addresses rest for `sink_linger_ms` in a
    flood, database and cache, for which nobody waits, for `store_linger_ms`; the calmer, the shorter.
    """

    telegram: TelegramConfig
    database: DatabaseConfig
    spool: SpoolConfig = SpoolConfig()
    queue: QueueConfig = QueueConfig()
    cache: CacheConfig = CacheConfig()
    push: PushConfig = PushConfig()
    photos: PhotosConfig = PhotosConfig()
    account: Account | None = None
    other_accounts: tuple[Account, ...] = ()
    lease_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    late_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 30.0
    proxy: ProxyConfig = ProxyConfig()
    bind_address: str = "127.0.0.1"
    port: Port = 4006
    token_file: str | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 256
    sink_linger_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 5.0
    store_linger_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 20.0
    stop_seconds: Annotated[float, msgspec.Meta(gt=0, le=30)] = 20.0
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        if 0 < self.lease_seconds < 2 * LEAVE_SECONDS:
            raise ValueError(f"lease_seconds must be 0 (none) or at least {2 * LEAVE_SECONDS:g}")
        if self.account is not None and self.other_accounts:
            raise ValueError("other_accounts is the first account's, which has no account")

    @property
    def unit(self) -> str:
        """Its unit, which also names it to database and systemd."""
        return "telegram-gateway" if self.account is None else f"telegram-gateway@{self.account}"

    @property
    def session_path(self) -> Path:
        """Where the encrypted session is."""
        return Path(self.telegram.session_file)

    @property
    def photo_cache(self) -> Path:
        """Where photos are kept."""
        return self.spool_path.with_name("photo_cache")

    @property
    def spool_path(self) -> Path:
        """Where the spool is."""
        return Path(self.spool.path)
