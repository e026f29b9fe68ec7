"""telegram-gateway-api: the stack's REST API."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from telegram_stack import program
from telegram_stack.api.app import Api
from telegram_stack.api.config import ApiConfig
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.health import Health, checks
from telegram_stack.api.service import NAME
from telegram_stack.api.tokens import TokenFileError, parse_tokens
from telegram_stack.cache import open_cache
from telegram_stack.config import ConfigError, read_secret
from telegram_stack.database import open_pool
from telegram_stack.observability.http import serve
from telegram_stack.observability.systemd import notify, watchdog

_log = logging.getLogger(__name__)


def main() -> int:
    """Run the API."""
    return program.main(NAME, ApiConfig, run)


async def run(config: ApiConfig, stop: asyncio.Event) -> None:
    """Serve until `stop`."""
    try:
        tokens = parse_tokens(read_secret(config.tokens_file))
    except TokenFileError as error:
        raise ConfigError(Path(config.tokens_file), [str(error)]) from error
    pool = await open_pool(config.database, NAME)
    cache = open_cache(config.cache)
    gateway = GatewayClient(config.gateway)
    api = Api(config, pool, tokens, Health(checks(config, pool)), cache=cache, gateway=gateway)
    app = api.application()
    http = asyncio.create_task(serve(app, config.bind_address, config.port, lambda _port: program.ready()), name="http")
    dog = asyncio.create_task(watchdog(lambda: not http.done()), name="watchdog")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({http, stopping}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        if not stop.is_set():
            await http
        _log.info("stopping")
    finally:
        for task in (http, dog, stopping):
            task.cancel()
        await asyncio.gather(http, dog, stopping, return_exceptions=True)
        await pool.close(timeout=2)
        await cache.close()
        await gateway.close()


if __name__ == "__main__":
    raise SystemExit(main())
