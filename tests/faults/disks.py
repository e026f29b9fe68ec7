"""Small disks that can be filled: an ext4 image on a loop device, so that a flush is a flush."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    @property
    def free(self) -> int:
        """Bytes that any user can still write."""
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes. What is written into existing blocks still succeeds, as on any full disk."""
        block = b"\0" * (1 << 20)
        with self._filler.open("ab", buffering=0) as filler:
            while block and (not leave or self.free > leave):
                try:
                    filler.write(block)
                except OSError:
                    block = block[: len(block) // 2 if len(block) > 512 else 0]
            with contextlib.suppress(OSError):
                os.fsync(filler.fileno())

    def clear(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


def can_mount() -> bool:
    """Whether this machine lets us mount an image."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextlib.contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """A file system of `megabytes`, mounted at `folder`, which is made."""
    image = folder.with_name(f"{folder.name}.img")
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    # Nothing is kept for root, who runs the services here.
    for command in (["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
        image.unlink()
