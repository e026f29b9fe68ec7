"""Events that a push address has refused, once more: at the gateway's port, and the command that asks there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from telegram_stack import program
from telegram_stack.config import ConfigError, load, read_secret
from telegram_stack.gateway.access import Route
from telegram_stack.gateway.config import GatewayConfig
from telegram_stack.sinks.push import PushSink
from telegram_stack.spool import Spool

_PAGE = 256
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - an address to replace


class Replayed(msgspec.Struct, rename="camel"):
    """What became of an address's refused events: `refused` ones, for `reason`, are still kept."""

    delivered: int = 0
    refused: int = 0
    reason: str = ""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    address: str | None = None


class Replay:
    """Takes events out of the quarantine of push sinks, in their order, as far as they are accepted now."""

    def __init__(self, spool: Spool, sinks: Sequence[PushSink]) -> None:
        self._spool = spool
        self._sinks = {sink.name: sink for sink in sinks}

    def routes(self) -> list[Route]:
        """``POST /push/replay`` {address?: ``push:host/path``}: of one address, or of all."""
        return [("/push/replay", "POST", self._handle)]

    async def _handle(self, request: Request) -> Response:
        try:
            body = msgspec.json.decode(await request.body() or b"{}", type=_Body)
        except msgspec.MsgspecError as error:
            return _json({"error": str(error)}, 422)
        if body.address is not None and body.address not in self._sinks:
            known = ", ".join(self._sinks) or "none"
            return _json({"error": f"there is no push address {body.address}; known: {known}"}, 404)
        names = list(self._sinks) if body.address is None else [body.address]
        return _json({name: await self._replay(self._sinks[name]) for name in names})

    async def _replay(self, sink: PushSink) -> Replayed:
        result = Replayed()
        position = 0
        while entries := await self._spool.quarantine_entries(sink.name, position, _PAGE):
            position = entries[-1].seq
            outcome = await sink.deliver(entries)
            await self._spool.release(sink.name, outcome.delivered)
            result.delivered += len(outcome.delivered)
            for reason, refused in outcome.refused.items():
                await self._spool.quarantine(sink.name, refused, reason)
                result.refused, result.reason = result.refused + len(refused), reason
            if outcome.failure:
                left = await self._spool.quarantined()
                result.refused, result.reason = left.get(sink.name, 0), outcome.failure
                break
        return result


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def replay_push(arguments: Sequence[str], credentials: str) -> int:
    """Have the running gateway push again what addresses have refused; 0 when nothing is left, else 1."""
    parser = argparse.ArgumentParser(prog="telegram-gateway", description=replay_push.__doc__)
    parser.add_argument("command", choices=["replay-push"])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the gateway's TOML file")
    parser.add_argument("--address", metavar="NAME", help="as /health calls it: push:host/path; without it all")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, GatewayConfig)
        os.environ.setdefault("CREDENTIALS_DIRECTORY", f"{credentials}/{config.unit}")
        results = _ask(config, options.address)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return program.BAD_CONFIG
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"the gateway does not answer ({error}); see: systemctl status telegram-gateway\n")
        return program.FAILED
    except _RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return program.FAILED
    for name, result in results.items():
        still = f", {result.refused} still refused: {result.reason}" if result.refused else ""
        sys.stdout.write(f"{name}: {result.delivered} delivered{still}\n")
    return program.FAILED if any(result.refused for result in results.values()) else program.OK


class _RefusedError(Exception):
    """The gateway will not do that; the message is its own."""


def _ask(config: GatewayConfig, address: str | None) -> Mapping[str, Replayed]:
    host = _EVERY_ADDRESS.get(config.bind_address, config.bind_address)
    headers = {} if config.token_file is None else {"Authorization": f"Bearer {read_secret(config.token_file)}"}
    answer = httpx.post(
        f"http://{host}:{config.port}/push/replay",
        json={} if address is None else {"address": address},
        headers=headers,
        timeout=None,  # noqa: S113 - as long as there is something to push
        trust_env=False,
    )
    if answer.is_error:
        raise _RefusedError(f"the gateway refuses: HTTP {answer.status_code} {answer.text}")
    return msgspec.json.decode(answer.content, type=dict[str, Replayed])
