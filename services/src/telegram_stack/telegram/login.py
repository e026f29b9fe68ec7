"""Logging in: phone number, code, password, or a bot's token. What is typed in is never logged, never shown again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec
from telethon import errors, functions

from telegram_stack.events import utc_now
from telegram_stack.telegram.session import SessionError, SessionFile

log = logging.getLogger(__name__)

Status = Literal[
    "idle", "starting", "waiting_code", "processing_code", "waiting_password", "processing_password",
    "completed", "error", "cancelling", "cancelled",
]  # fmt: skip

_PATIENCE = 600.0  # seconds for the whole log-in
_REQUEST_SECONDS = 30.0
_WAITING = ("waiting_code", "waiting_password")
_PROCESSING: dict[Status, Status] = {"waiting_code": "processing_code", "waiting_password": "processing_password"}


class LoginConflictError(Exception):
    """The log-in is not in a state for that; the message says in which it is."""


class LoginState(msgspec.Struct, rename="camel"):
    """How the log-in is. `retry_after`: seconds to wait where Telegram asks for a pause."""

    status: Status = "idle"
    message: str = "no log-in was begun"
    running: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    retry_after: int | None = None


class Login:
    """One log-in at a time; a completed one leaves its session in `session`, where the gateway takes it up."""

    def __init__(
        self,
        session: SessionFile,
        new_client: Callable[[], Any],
        connected: Callable[[], bool],
        patience: float = _PATIENCE,
    ) -> None:
        """`new_client` gives a Telethon client without a session; `connected` tells whether the gateway has one."""
        self._session = session
        self._new_client = new_client
        self._connected = connected
        self._patience = patience
        self._input: asyncio.Queue[str] = asyncio.Queue(1)
        self._task: asyncio.Task[None] | None = None
        self.state = LoginState()

    def start(self, phone: str, bot_token: str | None = None) -> None:
        """Ask Telegram to send a code to `phone`, or become the bot of `bot_token`. Raises LoginConflictError."""
        if self.state.running:
            raise LoginConflictError(f"a log-in runs already ({self.state.status}): finish or cancel it first")
        if self._connected():
            raise LoginConflictError("the gateway is logged in and connected: there is nothing to do")
        self.state = LoginState("starting", "connecting to Telegram", True, utc_now())
        self._input = asyncio.Queue(1)
        self._task = asyncio.create_task(self._run(phone, bot_token), name="login")

    def give(self, value: str) -> None:
        """The code or the password, whichever is waited for. Raises LoginConflictError."""
        if self.state.status not in _WAITING:
            raise LoginConflictError(f"nothing is waited for: the log-in is {self.state.status}")
        self._say(_PROCESSING[self.state.status], "asking Telegram")
        self._input.put_nowait(value)

    async def cancel(self) -> None:
        """End the log-in. Raises LoginConflictError when none runs."""
        if self._task is None or not self.state.running:
            raise LoginConflictError(f"no log-in runs: it is {self.state.status}")
        self._say("cancelling", "ending the log-in")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """The gateway stops."""
        with suppress(LoginConflictError):
            await self.cancel()

    def _say(self, status: Status, message: str, retry_after: int | None = None) -> None:
        self.state.status, self.state.message, self.state.retry_after = status, message, retry_after
        log.info("log-in: %s", status)

    async def _run(self, phone: str, bot_token: str | None) -> None:
        client = self._new_client()
        sent: Any = None
        try:
            async with asyncio.timeout(self._patience):
                await client.connect()
                if bot_token is None:
                    sent = await client.send_code_request(phone)
                    await self._sign_in(client, phone, sent.phone_code_hash)
                else:
                    await client.sign_in(bot_token=bot_token)
            saved = client.session.save()
            await client.disconnect()  # one key, one connection: the gateway is next
            self._session.write(saved, replace=True)
            self._say("completed", "logged in; the gateway takes the session within seconds")
        except asyncio.CancelledError:
            await self._withdraw(client, phone, sent)
            self._say("cancelled", "cancelled; no session was kept")
        except Exception as error:
            self._say("error", *_explained(error))
        finally:
            self.state.running = False
            self.state.finished_at = utc_now()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await client.disconnect()

    async def _sign_in(self, client: Any, phone: str, code_hash: str) -> None:
        self._say("waiting_code", "Telegram has sent a code to the account's other devices or by SMS")
        wrong = (errors.PhoneCodeInvalidError, errors.PhoneCodeEmptyError)
        try:
            while not await self._try(lambda code: client.sign_in(phone, code, phone_code_hash=code_hash), wrong):
                self._say("waiting_code", "the code is wrong: enter it again")
        except errors.SessionPasswordNeededError:
            self._say("waiting_password", "the account has a second factor: enter its password")
            while not await self._try(lambda given: client.sign_in(password=given), errors.PasswordHashInvalidError):
                self._say("waiting_password", "the password is wrong: enter it again")

    async def _try(self, sign_in: Callable[[str], Awaitable[Any]], wrong: Any) -> bool:
        """Wait for the next input and use it; False when Telegram says that it is `wrong`."""
        given = await self._input.get()
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await sign_in(given)
        except wrong:
            return False
        return True

    async def _withdraw(self, client: Any, phone: str, sent: Any) -> None:
        """Tell Telegram that the code is not wanted, as far as it listens."""
        if sent is not None and client.is_connected():
            with suppress(Exception):
                async with asyncio.timeout(5):
                    await client(functions.auth.CancelCodeRequest(phone, sent.phone_code_hash))


_REASONS: dict[type[Exception], str] = {
    errors.PhoneCodeExpiredError: "the code has expired: start again for a new one",
    errors.PhoneNumberInvalidError: "this is no phone number: give it with its country code, for example +55…",
    errors.PhoneNumberBannedError: "Telegram has banned this phone number",
    errors.PhoneNumberUnoccupiedError: "no account has this phone number",
    errors.AccessTokenInvalidError: "this is no bot's token: @BotFather gives it, as 123456:ABC…",
    errors.AccessTokenExpiredError: "the bot's token was revoked: ask @BotFather for the new one",
    TimeoutError: "the log-in took too long: start again",
}


def _explained(error: Exception) -> tuple[str, int | None]:
    """What went wrong, without anything that was typed in, and the seconds to wait."""
    if isinstance(error, errors.FloodWaitError):
        return f"Telegram asks to wait {error.seconds} s before another try", error.seconds
    reason = _REASONS.get(type(error))
    if reason is None and isinstance(error, SessionError):
        reason = str(error)
    if reason is None and isinstance(error, OSError):
        reason = f"Telegram cannot be reached: {error.strerror or type(error).__name__}"
    return reason or f"Telegram refuses the log-in: {type(error).__name__}", None
