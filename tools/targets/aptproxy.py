"""A small caching HTTP proxy: the only way out a target has, and only to the host's own apt archives.

Run as `python3 -m tools.targets.aptproxy ADDRESS PORT FOLDER`; the lab starts and stops it.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

from tools.targets.aptsources import host_options, host_proxies, host_sources

_CHUNK = 1 << 18
_TIMEOUT = 120


def is_immutable(path: str) -> bool:
    """Whether an archive never changes what is at `path`, so that a copy can be kept for good."""
    return "/by-hash/" in path or path.endswith(".deb")


class Archive:
    """Fetches from the allowed hosts and keeps what never changes."""

    def __init__(self, folder: Path, schemes: Mapping[str, str], proxies: Mapping[str, str]) -> None:
        self._folder = folder
        self._schemes = schemes
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler(dict(proxies))).open
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def allows(self, host: str) -> bool:
        """Whether the host's own apt uses this archive."""
        return host in self._schemes

    def fetch(self, url: SplitResult, headers: Mapping[str, str]) -> Any:
        """Ask the archive itself; raises HTTPError for its refusals (304 too), URLError when it is out of reach."""
        upstream = url._replace(scheme=self._schemes[url.netloc]).geturl()
        return self._open(urllib.request.Request(upstream, headers=dict(headers)), timeout=_TIMEOUT)  # noqa: S310

    def kept(self, url: SplitResult) -> IO[bytes]:
        """The kept copy of something immutable, fetched first if need be."""
        copy = self._folder / hashlib.sha256(f"{url.netloc}{url.path}".encode()).hexdigest()
        with self._guard:
            lock = self._locks.setdefault(copy, threading.Lock())
        with lock:
            if not copy.exists():
                self._keep(url, copy)
        return copy.open("rb")

    def _keep(self, url: SplitResult, copy: Path) -> None:
        """Fetch into a file of our own first: other checkouts share the folder."""
        with self.fetch(url, {}) as answer, tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as part:
            try:
                shutil.copyfileobj(answer, part, _CHUNK)
                expected = answer.headers.get("Content-Length")
                if expected is not None and int(expected) != part.tell():
                    raise http.client.IncompleteRead(b"", int(expected) - part.tell())
                Path(part.name).replace(copy)
            except BaseException:
                Path(part.name).unlink()
                raise


class Handler(BaseHTTPRequestHandler):
    """Answers one target's apt."""

    protocol_version = "HTTP/1.1"
    archive: Archive

    def do_GET(self) -> None:
        """Serve one file, or say in one line why not."""
        url = urlsplit(self.path)
        if not self.archive.allows(url.netloc):
            self.send_error(
                403, f"{url.netloc or 'this'} is not in the apt sources of the machine that runs the target"
            )
            return
        try:
            if is_immutable(url.path):
                with self.archive.kept(url) as copy:
                    self._answer(200, {"Content-Length": str(os.fstat(copy.fileno()).st_size)}, copy)
            else:
                self._pass_on(url)
        except urllib.error.HTTPError as error:
            self.send_error(error.code, error.reason)
        except ConnectionError:  # the target hung up
            self.close_connection = True
        except (OSError, http.client.HTTPException) as error:
            self.send_error(504, f"{url.netloc} cannot be reached: {error}")

    def _pass_on(self, url: SplitResult) -> None:
        """Serve what changes: nothing is kept, but apt's question whether it changed goes along."""
        asked = {key: value for key, value in self.headers.items() if key.lower() == "if-modified-since"}
        try:
            answer = self.archive.fetch(url, asked)
        except urllib.error.HTTPError as error:
            if error.code != 304:
                raise
            self._answer(304, {})
            return
        with answer, tempfile.TemporaryFile() as body:
            shutil.copyfileobj(answer, body, _CHUNK)
            headers = {"Content-Length": str(body.tell())}
            if answer.headers.get("Last-Modified"):
                headers["Last-Modified"] = answer.headers["Last-Modified"]
            body.seek(0)
            self._answer(200, headers, body)

    def _answer(self, code: int, headers: Mapping[str, str], body: IO[bytes] | None = None) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if body is not None:
            shutil.copyfileobj(body, self.wfile, _CHUNK)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what was served; apt asks thousands of times."""

    def log_error(self, format: str, *args: Any) -> None:
        """One line for each refusal, with what was asked for."""
        sys.stderr.write(f"{self.client_address[0]} {self.path}: {format % args}\n")


def main(address: str, port: int, folder: Path) -> None:
    """Serve until told to end."""
    sources = host_sources()
    schemes = {urlsplit(source.uri).netloc: urlsplit(source.uri).scheme for source in sources}
    Handler.archive = Archive(folder, schemes, {**urllib.request.getproxies(), **host_proxies(host_options())})
    ThreadingHTTPServer.daemon_threads = True
    with contextlib.suppress(KeyboardInterrupt):
        ThreadingHTTPServer((address, port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
