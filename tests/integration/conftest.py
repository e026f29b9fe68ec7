"""Fixtures that several files of tests share: the gateway's, a worker's servers, the engines of the database."""

from tests.integration.consumers import consumer_broker, consumer_cache, consumer_database
from tests.integration.engines import engine_server
from tests.integration.gateways import session, sinks, telegram

__all__ = ["consumer_broker", "consumer_cache", "consumer_database", "engine_server", "session", "sinks", "telegram"]
