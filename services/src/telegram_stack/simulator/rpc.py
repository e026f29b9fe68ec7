"""What a request handler gets and how it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from telegram_stack.simulator.model import Account, AuthKeyRecord, Channel, UnknownChannelError

if TYPE_CHECKING:
    from telegram_stack.simulator.server import Server


class RpcError(Exception):
    """A refusal in Telegram's words, for example 400 PHONE_CODE_INVALID."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one request: who asks, with which key, at which of our addresses."""

    server: Server
    key: AuthKeyRecord
    local_address: tuple[str, int]

    @property
    def account(self) -> Account:
        """Who is logged in. Raises RpcError when nobody is."""
        if self.key.account_id is None:
            raise RpcError(401, "AUTH_KEY_UNREGISTERED")
        if self.key.awaits_password:
            raise RpcError(401, "SESSION_PASSWORD_NEEDED")
        return self.server.store.account_by_id(self.key.account_id)

    def channel(self, peer: Any) -> Channel:
        """The channel that an input peer means. Raises RpcError when it, or its access hash, is wrong."""
        try:
            record = self.server.store.channel(peer.channel_id)
        except (AttributeError, UnknownChannelError):
            raise RpcError(400, "CHANNEL_INVALID") from None
        if peer.access_hash != self.server.store.hash_of(self.account.id, record.id):
            raise RpcError(400, "CHANNEL_INVALID")
        if record.id in self.server.faults.private:
            raise RpcError(400, "CHANNEL_PRIVATE")
        return record

    def people_only(self) -> None:
        """Refuse a bot. Raises RpcError."""
        if self.account.bot:
            raise RpcError(400, "BOT_METHOD_INVALID")


Handler = Callable[[Call, Any], Any]
"""Takes a request and gives its result: a TL object, a bool, or a list of TL objects."""
