"""A file beside the spool that holds room on the disk, to be given back when there is none left.

Trimming and checkpoints write before they free anything; on a full disk they need this room. Events never get it:
they are written only while the reserve is in place, so that a full disk stops them before it stops the trimming.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


class Reserve:
    """Holds `size` bytes at `path`; with size 0 there is none, and nothing is ever missing."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._held = False

    @property
    def held(self) -> bool:
        """Whether the room is there to be given back."""
        return self._held or not self._size

    @property
    def wanted(self) -> int:
        """Bytes that are held when all is well."""
        return self._size

    @property
    def size(self) -> int:
        """Bytes that are held now."""
        return self._size if self._held else 0

    def make(self) -> bool:
        """Take the room, unless it is held already; False when the disk has not got it."""
        if self.held:
            return True
        try:
            self._allocate()
        except OSError:  # no room, or no right: the spool's own file would say the same
            self.release()
            return False
        self._held = True
        return True

    def _allocate(self) -> None:
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            there = os.fstat(file).st_blocks * 512
            free = os.fstatvfs(file)
            # Room to go on with as well; and the reserve must not take the last of it for a moment.
            if there < self._size and free.f_bavail * free.f_frsize < self._size - there + self._size // 4:
                raise OSError(errno.ENOSPC, "not enough room")
            os.posix_fallocate(file, 0, self._size)
            os.ftruncate(file, self._size)  # a smaller size was configured since
            os.fsync(file)
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the room back to the disk."""
        self._held = False
        if self._size:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
