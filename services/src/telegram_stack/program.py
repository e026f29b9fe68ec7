"""What every service's `main` does: read the config or say what is wrong with it, log, run until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvloop

from telegram_stack import config as configuration
from telegram_stack.observability import http
from telegram_stack.observability import logging as json_logging
from telegram_stack.observability.systemd import notify, watchdog

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

OK, FAILED, BAD_CONFIG = 0, 1, 2


class CannotRunError(Exception):
    """What the program needs is not as it must be; the message says what to do, and a traceback would say no more."""


@cache
def version() -> str:
    """The installed version of this package; ``source`` when it runs from a source tree."""
    try:
        return metadata.version("telegram-stack")
    except metadata.PackageNotFoundError:
        return "source"


def main(
    name: str,
    kind: type[T],
    serve: Callable[[T, asyncio.Event], Coroutine[Any, Any, None]],
    check: Callable[[T], list[str]] = lambda _config: [],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the service `name` and return its exit code: 0 after a clean stop, 1 after a failure, 2 for a bad config.

    `serve` gets the config and an event that SIGTERM or SIGINT sets, and must then return in time; a second signal
    cancels it. `check` finds what the struct cannot know, a sentence a problem.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file")
    parser.add_argument("--check", action="store_true", help="validate the file and exit: 0 when good, 2 when bad")
    options = parser.parse_args(arguments)
    try:
        config = configuration.load(options.config, kind)
        problems = check(config)
        if problems:
            raise configuration.ConfigError(options.config, problems)
        if options.check:
            sys.stdout.write(f"{options.config}: valid\n")
            return OK
        json_logging.setup(name, getattr(config, "log_level", "info"))
        _short_pauses()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_until_stopped(serve, config))
    except configuration.ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIG


def _short_pauses() -> None:
    """Nothing but its own work shall hold the loop up.

    The collector leaves the loaded libraries alone: to search them takes tens of milliseconds. A thread that waits for
    the interpreter, as the spool's does once an event, gets it after half a millisecond, not five.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    sys.setswitchinterval(0.0005)


async def _until_stopped(serve: Callable[[T, asyncio.Event], Coroutine[Any, Any, None]], config: T) -> int:
    stop = asyncio.Event()
    task = asyncio.create_task(serve(config, stop), name="serve")

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        _log.warning("stopped at once by a second signal")
        return FAILED
    except configuration.ConfigError:
        raise
    except OSError as error:
        _log.error("cannot run: %s", error.strerror or error)
        return FAILED
    except CannotRunError as error:
        _log.error("cannot run: %s", error)
        return FAILED
    except Exception:
        _log.exception("failed")
        return FAILED
    return OK


async def work(
    loop: Coroutine[Any, Any, None], app: ASGIApp, address: tuple[str, int], stop: asyncio.Event, stop_seconds: float
) -> None:
    """Run `loop`, which hears `stop` itself, with `app` at `address` beside it; raises what either of them raises.

    From `stop` on the loop has `stop_seconds` to finish what it has begun.
    """
    working = asyncio.create_task(loop, name="work")
    serving = asyncio.create_task(http.serve(app, *address, lambda _port: ready()), name="http")
    dog = asyncio.create_task(watchdog(lambda: not working.done()), name="watchdog")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        if serving.done() and not stop.is_set():
            await serving
        _, unfinished = await asyncio.wait({working}, timeout=stop_seconds)
        if unfinished:
            _log.warning("not finished within %g s: what is left is done after the next start", stop_seconds)
        else:
            await working
            _log.info("stopped")
    finally:
        tasks = (working, serving, dog, stopping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rest(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop` is set, or for so many seconds."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def ready() -> None:
    """Tell systemd and the journal that the service serves."""
    notify("READY=1")
    _log.info("ready")
