"""The program ``telegram-simulator``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
import uvloop

from telegram_stack.simulator.control import Control
from telegram_stack.simulator.server import Server, Settings
from telegram_stack.simulator.store import Store

log = logging.getLogger("telegram-simulator")


class CannotServeError(Exception):
    """An address cannot be listened on; the message says which and why."""


class _ControlServer(uvicorn.Server):
    """uvicorn without its signal handling: the program has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="telegram-simulator",
        description="A Telegram of your own for demo, tests and load: unmodified MTProto clients talk to it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--listen", default="127.0.0.1", metavar="IP", help="address for Telegram clients")
    command.add_argument("--port", type=int, default=8443, help="port for Telegram clients; 0 takes a free one")
    command.add_argument("--control-listen", default="127.0.0.1", metavar="IP", help="address of the control port")
    command.add_argument("--control-port", type=int, default=8444, help="HTTP port for tests; 0 takes a free one")
    command.add_argument("--state", type=Path, required=True, metavar="DIR", help="where it keeps what it remembers")
    command.add_argument("--channels", type=int, default=20, help="make channels until there are so many")
    command.add_argument("--rate", type=float, default=0.0, help="messages a second, from the start; 0 posts none")
    command.add_argument(
        "--history-rate", type=float, default=10.0, help="history requests a second an account may make; 0 is no limit"
    )
    command.add_argument("--history-burst", type=int, default=100, help="history requests it may make at once")
    command.add_argument(
        "--difference-limit", type=int, default=5000, help="beyond it a channel difference is too long"
    )
    command.add_argument(
        "--shared-keys",
        choices=("refuse", "allow"),
        default="refuse",
        help="what becomes of a key in use from two addresses at once",
    )
    return command


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(options.state / "telegram.sqlite")
    settings = Settings(options.history_rate, options.history_burst, options.difference_limit, options.shared_keys)
    server = Server(store, settings)
    with _named(f"{options.listen}:{options.port}"):
        address = await server.start(options.listen, options.port)
    with _named(f"{options.control_listen}:{options.control_port}"):
        control_socket = socket.create_server((options.control_listen, options.control_port))
    missing = options.channels - len(store.channels)
    if missing > 0:
        store.add_channels("Sinais", missing)
    control = Control(server, address)
    web = _ControlServer(uvicorn.Config(control.application(), log_config=None, lifespan="off"))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(web.serve(sockets=[control_socket]))
    if options.rate > 0:
        await control.start_load(options.rate)
    log.info("Telegram clients: %s:%d; control port: %s:%d", *address, *control_socket.getsockname()[:2])
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await control.stop()
    web.should_exit = True
    await serving
    await server.stop()
    store.close()


def main() -> None:
    """Entry point."""
    options = parser().parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    try:
        uvloop.run(run(options))
    except CannotServeError as error:
        sys.exit(f"telegram-simulator: {error}")


@contextlib.contextmanager
def _named(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotServeError(f"cannot listen on {address}: {error.strerror or error}") from error


if __name__ == "__main__":
    main()
