"""TCP links between the parts of the chain, which can be cut or become black holes."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.integration.servers import free_port

T = TypeVar("T")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Link:
    """A proxy on a port of its own. Its methods are called from other threads than the proxy's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int) -> None:
        self.port = free_port()
        self.target = target
        self.reset = 0
        """Connections that a cut has reset so far."""
        self.held = 0
        """Pieces of data that a black hole has held back so far."""
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def open(self) -> None:
        """Accept and forward (again). What a black hole held is delivered, as TCP would have sent it again."""
        self._call(self._open())

    def cut(self) -> None:
        """Refuse connections and reset those there are."""
        self._call(self._cut())

    def swallow(self) -> None:
        """Go on accepting, but forward nothing in either direction."""
        self._call(self._swallow())

    @property
    def swallowing(self) -> bool:
        """Whether it is a black hole now."""
        return not self._flowing.is_set()

    def refuses(self) -> bool:
        """Whether a connection is refused."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except ConnectionRefusedError:
            return True
        return False

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._pipe, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flowing.set()
        for writer in list(self._writers):
            self.reset += 1
            _abort(writer)

    async def _swallow(self) -> None:
        self._flowing.clear()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _abort(writer)
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            ways = [self._copy(reader, far_writer), self._copy(far_reader, writer)]
            await asyncio.wait([asyncio.ensure_future(way) for way in ways], return_when=asyncio.ALL_COMPLETED)
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self._flowing.is_set():
                    self.held += 1
                    await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                await self._flowing.wait()
                writer.write_eof()
        except OSError:
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, not with a polite end."""
    if (peer := writer.get_extra_info("socket")) is not None:
        try:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        except OSError:
            return
    writer.transport.abort()


class Links:
    """All links, served by a thread of their own: whoever tests may be busy."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()
        self._links: list[Link] = []

    def to(self, target: int) -> Link:
        """A new, open link to a port of this machine."""
        link = Link(self._loop, target)
        link.open()
        self._links.append(link)
        return link

    def close(self) -> None:
        """Cut all of them and end the thread."""
        for link in self._links:
            link.cut()
        asyncio.run_coroutine_threadsafe(self._quiet(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _quiet(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
