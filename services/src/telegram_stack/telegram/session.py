"""The session file: a Telethon string session, encrypted, readable by its owner alone, used by one process.

The key comes as a credential, so that a copy of the file alone opens no account.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from telethon.sessions import StringSession

from telegram_stack.telegram import string_session


class SessionError(Exception):
    """The session cannot be used; the message says why and what to do."""


class SessionMissingError(SessionError):
    """There is no session yet."""


class SessionFile:
    """One encrypted session at `path`."""

    def __init__(self, path: Path, key: str) -> None:
        """`key` is a Fernet key. Raises SessionError when it is none."""
        self.path = path
        try:
            self._fernet = Fernet(key)
        except ValueError as error:
            raise SessionError(
                "the session key is no Fernet key: it must be 32 random bytes in URL-safe base64. Make one with: "
                "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
            ) from error

    def check_permissions(self) -> None:
        """Refuse a file or folder that others may touch. Raises SessionError with the commands that mend it."""
        owner = pwd.getpwuid(os.geteuid()).pw_name
        for path, mode in ((self.path.parent, 0o700), (self.path, 0o600)):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SessionError(f"{path} cannot be inspected: {error.strerror}") from error
            wrong = []
            # Root imports for the service, and leaves the owner as it is.
            if os.geteuid() and status.st_uid != os.geteuid():
                wrong.append(f"chown {owner}: {path}")
            if stat.S_IMODE(status.st_mode) & ~mode:
                wrong.append(f"chmod {mode:04o} {path}")
            if wrong:
                raise SessionError(
                    f"{path} has a wrong owner or mode ({_name(status.st_uid)}, {stat.S_IMODE(status.st_mode):04o}): "
                    f"whoever reads it can use the Telegram account. Run: sudo {' && sudo '.join(wrong)}"
                )

    def read(self) -> str:
        """The session string. Raises SessionMissingError or SessionError."""
        self.check_permissions()
        try:
            sealed = self.path.read_bytes()
        except FileNotFoundError:
            raise SessionMissingError(
                f"there is no session at {self.path}: log in elsewhere and import the session string with: "
                "telegram-gateway import-session --config FILE < session.txt"
            ) from None
        except OSError as error:
            raise SessionError(f"the session {self.path} cannot be read: {error.strerror}") from error
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise SessionError(
                f"the session {self.path} was not encrypted with this session key: restore the key that belongs to it, "
                "or import the session again: telegram-gateway import-session --config FILE --replace < session.txt"
            ) from None

    def write(self, session: str, *, replace: bool = False) -> None:
        """Encrypt and keep `session`, one of Telethon or GramJS, whole or not at all. Raises SessionError."""
        session = string_session.to_telethon(session)
        try:
            complete = StringSession(session).auth_key is not None
        except Exception:  # errors of base64, struct and ipaddress; their words could show parts of the session
            complete = False
        if not complete:
            raise SessionError(
                "this is no string session of Telethon or GramJS: export one with client.session.save()"
            ) from None
        if self.path.exists() and not replace:
            raise SessionError(f"there is a session at {self.path} already: add --replace to put this one in its place")
        self.check_permissions()
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(self._fernet.encrypt(session.encode()))
                file.flush()
                os.fsync(file.fileno())
            # Written by root for the service: it goes to whom the folder belongs to.
            folder = self.path.parent.stat()
            if os.geteuid() == 0:
                os.chown(fresh, folder.st_uid, folder.st_gid)
            fresh.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise SessionError(f"the session {self.path} cannot be written: {error.strerror}") from error

    def stamp(self) -> tuple[int, ...] | None:
        """Changes when the file is replaced, or when owner or mode of file or folder change; None without a file."""
        try:
            file, folder = self.path.stat(), self.path.parent.stat()
        except OSError:
            return None
        return file.st_ctime_ns, file.st_ino, folder.st_mode, folder.st_uid

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the session for this process. One key in two processes is dead for good. Raises SessionError."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SessionError(f"the lock {lock} cannot be opened: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise SessionError(
                    f"another gateway (pid {holder}) uses the session {self.path}: Telegram would void a key used "
                    f"twice. Stop the other one first: systemctl stop telegram-gateway, or kill {holder}"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
