# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which processes of this host, those in containers too, are connected to some addresses. Needs root."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

PROC = Path("/proc")
_ESTABLISHED = "01"


class Connection(NamedTuple):
    """A connection to `address`:`port`; `pid` 0 is a process that cannot be seen."""

    pid: int
    command: str
    address: str
    port: int


def connections_to(addresses: Iterable[str], ports: Container[int], proc: Path = PROC) -> list[Connection]:
    """Every established TCP connection of this host to one of `addresses` (IPv4 or IPv6, in figures) and `ports`."""
    wanted = {ipaddress.ip_address(address) for address in addresses}
    found = {
        inode: (address, port)
        for table in _tables(proc)
        for inode, (address, port) in established(table)
        if address in wanted and port in ports
    }
    if not found:
        return []
    owners = dict(_owners(proc, set(found)))
    return sorted(
        Connection(owners.get(inode, 0), _command(proc, owners.get(inode, 0)), str(address), port)
        for inode, (address, port) in found.items()
    )


def established(table: str) -> Iterator[tuple[int, tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]]:
    """Inode and remote end of each established connection in a `table` as /proc/net/tcp and tcp6 have it."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _ESTABLISHED:
            address, port = fields[2].split(":")
            yield int(fields[9]), (_address(address), int(port, 16))


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel prints it: words of 32 bits in the machine's order."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    order = "<" if sys.byteorder == "little" else ">"
    found = ipaddress.ip_address(struct.pack(f"{order}{len(words)}I", *words))
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _pids(proc: Path) -> list[int]:
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]


def _tables(proc: Path) -> Iterator[str]:
    """The kernel's tables of each network namespace in which a process lives."""
    seen = set()
    for pid in _pids(proc):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            space = (proc / str(pid) / "ns" / "net").readlink()
            if space in seen:
                continue
            seen.add(space)
            for name in ("tcp", "tcp6"):
                yield (proc / str(pid) / "net" / name).read_text(encoding="ascii")


def _owners(proc: Path, inodes: set[int]) -> Iterator[tuple[int, int]]:
    for pid in _pids(proc):
        with contextlib.suppress(OSError):
            for entry in (proc / str(pid) / "fd").iterdir():
                target = str(entry.readlink())
                if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                    yield int(target[8:-1]), pid


def _command(proc: Path, pid: int) -> str:
    """The program's name: its arguments might be secret."""
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return "unknown"
