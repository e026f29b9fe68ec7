"""The service's word to systemd: readiness, status, watchdog (sd_notify(3), without its library)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable


def notify(state: str) -> bool:
    """Send `state` (lines such as ``READY=1``) to systemd; False where nobody listens.

    Never raises: a service does not fail because its supervisor is deaf.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """How often, in seconds, systemd wants to hear from this process: half of WatchdogSec; None when it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdigit() or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


async def watchdog(alive: Callable[[], bool] = lambda: True) -> None:
    """Feed systemd's watchdog while the event loop turns and `alive()` holds; returns at once without a watchdog."""
    interval = watchdog_interval()
    while interval is not None:
        if alive():
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)
