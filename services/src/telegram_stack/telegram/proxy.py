"""Reaching Telegram through a SOCKS5 proxy or an MTProxy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from telethon.network import ConnectionTcpMTProxyRandomizedIntermediate


@dataclass(frozen=True)
class Proxy:
    """`secret` is the password of `user` at a SOCKS5 proxy, or an MTProxy's secret in hex or base64."""

    kind: Literal["socks5", "mtproxy"]
    host: str
    port: int
    user: str | None = None
    secret: str | None = field(default=None, repr=False)

    def client_options(self) -> dict[str, Any]:
        """What Telethon's client is made with."""
        if self.kind == "mtproxy":
            return {
                "connection": ConnectionTcpMTProxyRandomizedIntermediate,
                "proxy": (self.host, self.port, self.secret),
            }
        socks = {"proxy_type": "socks5", "addr": self.host, "port": self.port, "rdns": True}
        if self.user is not None:
            socks |= {"username": self.user, "password": self.secret or ""}
        return {"proxy": socks}
