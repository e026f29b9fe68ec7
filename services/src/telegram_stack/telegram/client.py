"""Telethon's client as the gateway uses it, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError
from telethon import TelegramClient, errors, functions
from telethon.errors.common import AuthKeyNotFound

from telegram_stack.telegram.convert import marked

VOID = (errors.UnauthorizedError, errors.AuthKeyError, AuthKeyNotFound)
"""The session is of no use any more: revoked, in use elsewhere, or the account is banned."""

_PROXY = (ProxyConnectionError, ProxyError, ProxyTimeoutError)  # no OSErrors, though Telethon tries to make them so

TEMPORARY = (OSError, EOFError, TimeoutError, errors.RPCError, *_PROXY)
"""The network's and Telegram's everyday troubles: connect again."""


@dataclass(frozen=True)
class Server:
    """An MTProto server that is not Telegram's own; `public_key` is its RSA key in PEM."""

    address: str
    port: int
    dc_id: int
    public_key: str


class Client(TelegramClient):
    """Tells when Telethon fills a gap by itself: it drops the edits and deletions in it."""

    on_gap: Callable[[int], None] = staticmethod(lambda _channel_id: None)

    async def __call__(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """Send a request."""
        result = await super().__call__(request, *arguments, **options)
        if type(request) is functions.updates.GetChannelDifferenceRequest:
            self.on_gap(marked(request.channel.channel_id))
        return result


async def lost(client: TelegramClient) -> None:
    """Wait for the end of the connection and raise why it ended."""
    try:
        await client.disconnected
    except EOFError as error:
        raise ConnectionError("Telegram has closed the connection") from error
    raise ConnectionError("the connection was closed")


def void_cause(error: Exception) -> str:
    """What to do about one of `VOID`."""
    if isinstance(error, errors.AuthKeyDuplicatedError):
        return (
            "Telegram has voided the session, because it was used from two addresses at once: "
            "log in again and import the new session with telegram-gateway import-session --replace"
        )
    if isinstance(error, errors.UserDeactivatedBanError | errors.UserDeactivatedError):
        return "Telegram has banned or deleted the account: ask recover@telegram.org, or use another account"
    return (
        f"Telegram does not accept the session any more ({type(error).__name__}): "
        "log in again and import the new session with telegram-gateway import-session --replace"
    )
