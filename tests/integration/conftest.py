"""Fixtures of the gateway's tests."""

from tests.integration.gateways import session, sinks, telegram

__all__ = ["session", "sinks", "telegram"]
