"""Fixtures that several files of tests share: the gateway's, and the servers of a worker's tests."""

from tests.integration.consumers import consumer_broker, consumer_cache, consumer_database
from tests.integration.gateways import session, sinks, telegram

__all__ = ["consumer_broker", "consumer_cache", "consumer_database", "session", "sinks", "telegram"]
