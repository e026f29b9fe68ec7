"""Telegram through a SOCKS5 proxy: a small one on loopback that asks for a password."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from telethon.network import ConnectionTcpMTProxyRandomizedIntermediate
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import free_port, until

from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.proxy import Proxy
from telegram_stack.telegram.session import SessionFile


@dataclass
class Socks:
    """RFC 1928 and 1929, CONNECT to an IPv4 address only."""

    port: int
    connections: int = 0
    refused: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        assert 2 in await reader.readexactly(count)
        writer.write(b"\x05\x02")
        user, password = [await self._field(reader, skip) for skip in (1, 0)]
        if (user, password) != (b"somebody", b"a made-up password"):
            self.refused += 1
            writer.write(b"\x01\x01")
            await writer.drain()
            return
        writer.write(b"\x01\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x01"
        address, port = struct.unpack(">4sH", await reader.readexactly(6))
        far_reader, far_writer = await asyncio.open_connection(str(ipaddress.ip_address(address)), port)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        self.connections += 1
        self.writers += [writer, far_writer]
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _field(self, reader: asyncio.StreamReader, skip: int) -> bytes:
        await reader.readexactly(skip)
        return await reader.readexactly((await reader.readexactly(1))[0])

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def socks(port: int) -> AsyncIterator[Socks]:
    proxy = Socks(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    try:
        yield proxy
    finally:
        server.close()
        for writer in proxy.writers:
            writer.close()
        await server.wait_closed()


@pytest.mark.requirement("GW-11")
async def test_everything_goes_through_the_proxy_and_nothing_round_it(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    port = free_port()
    settings = Proxy("socks5", "127.0.0.1", port, "somebody", "a made-up password")
    assert "made-up" not in repr(settings)
    async with running(session, sinks, proxy=settings) as gateway:
        await until(lambda: gateway.source.state == "connecting", 20)
        assert not telegram.connections
        async with socks(port) as proxy:
            await until(lambda: gateway.source.state == "connected", 20)
            await gateway.complete()
            sent = post(telegram, 20)
            await until(lambda: sinks[0].keys() == Counter(sent))
            assert telegram.connections == proxy.connections == 1
        await until(lambda: not telegram.connections)
        missed = post(telegram, 20)
        async with socks(port):
            await until(lambda: set(sinks[0].keys()) == sent | missed, 30)
    assert sinks[0].keys() == Counter(sent | missed)


@pytest.mark.requirement("GW-11")
async def test_a_wrong_password_is_a_state_that_names_the_proxy(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], caplog: pytest.LogCaptureFixture
) -> None:
    async with socks(free_port()) as proxy:
        settings = Proxy("socks5", "127.0.0.1", proxy.port, "somebody", "a wrong one")
        async with running(session, sinks, proxy=settings) as gateway:
            await until(lambda: proxy.refused >= 2 and gateway.source.state == "connecting", 20)
            assert f"through the socks5 proxy 127.0.0.1:{proxy.port}" in gateway.source.cause
    assert not telegram.connections
    assert "Traceback" not in caplog.text
    assert "a wrong one" not in caplog.text


@pytest.mark.requirement("GW-11")
def test_an_mtproxy_is_spoken_to_with_padding_and_its_secret() -> None:
    options = Proxy("mtproxy", "proxy.example", 443, secret="dd" + "00" * 16).client_options()
    connection = options["connection"]
    assert connection is ConnectionTcpMTProxyRandomizedIntermediate
    assert connection.address_info(options["proxy"]) == ("proxy.example", 443)
    assert connection.normalize_secret(options["proxy"][2]) == bytes(16)
