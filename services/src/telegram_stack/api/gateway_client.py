"""The MTProto gateway's own port, as the API asks it."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from telegram_stack.api.config import GatewayConfig
from telegram_stack.api.errors import ApiError

_CODES = {404: "not_found", 409: "conflict", 422: "invalid"}


class GatewayClient:
    """Asks and gives back what the gateway says; its refusals become those of the API."""

    def __init__(self, config: GatewayConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        host = f"[{config.host}]" if ":" in config.host else config.host
        self._http = httpx.AsyncClient(
            base_url=f"http://{host}:{config.port}", timeout=config.timeout, transport=transport, trust_env=False
        )
        self.accounts = {
            name: GatewayClient(msgspec.structs.replace(config, port=port, accounts={}), transport)
            for name, port in config.accounts.items()
        }
        """The gateways of further accounts, by name."""

    def of(self, account: str) -> GatewayClient:
        """The gateway that takes what is given to `account`: the first one's where there is no such account."""
        return self.accounts.get(account, self)

    async def json(self, method: str, path: str, body: object = None) -> Any:
        """The gateway's answer. Raises ApiError: 503 when there is none, 404, 409 or 422 in the gateway's words."""
        answer = await self.ask(method, path, body)
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.DecodeError as error:
            raise _unavailable("its answer is no JSON") from error

    async def health(self) -> dict[str, Any]:
        """The gateway's health, which is an answer also when it is bad. Raises ApiError 503."""
        answer = await self._send("GET", "/health", None, None)
        try:
            return msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise _unavailable("its health is no JSON") from error

    async def ask(self, method: str, path: str, body: object = None, timeout: float | None = None) -> httpx.Response:  # noqa: ASYNC109
        """Any answer that is a success. Raises ApiError."""
        answer = await self._send(method, path, body, timeout)
        if answer.is_success:
            return answer
        reason = _reason(answer)
        if answer.status_code in _CODES:
            raise ApiError(answer.status_code, _CODES[answer.status_code], reason)
        raise _unavailable(reason, answer.headers.get("Retry-After"))

    async def _send(self, method: str, path: str, body: object, timeout: float | None) -> httpx.Response:  # noqa: ASYNC109
        content = None if body is None else msgspec.json.encode(body)
        more = {} if timeout is None else {"timeout": timeout}
        try:
            return await self._http.request(method, path, content=content, **more)  # type: ignore[arg-type]
        except httpx.TimeoutException as error:
            raise _unavailable("it does not answer in time") from error
        except httpx.HTTPError as error:
            raise _unavailable("it cannot be reached") from error

    async def close(self) -> None:
        """Close the connections."""
        for client in (self, *self.accounts.values()):
            await client._http.aclose()


def _unavailable(reason: str, retry_after: str | None = None) -> ApiError:
    headers = {"Retry-After": retry_after} if retry_after else None
    return ApiError(503, "gateway_unavailable", f"The gateway: {reason}", headers=headers)


def _reason(answer: httpx.Response) -> str:
    try:
        return str(msgspec.json.decode(answer.content, type=dict[str, Any])["error"])
    except (msgspec.DecodeError, KeyError):
        return f"it answers {answer.status_code}"
