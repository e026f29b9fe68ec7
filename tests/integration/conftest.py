"""Fixtures that several files of tests share: the API's, the gateway's, a worker's servers, the database's engines,
the installed collection."""

from tests.integration.apis import api_channel, api_database, data, http, link
from tests.integration.consumers import consumer_broker, consumer_cache, consumer_database
from tests.integration.engines import engine_server
from tests.integration.gateways import session, sinks, telegram
from tests.integration.installed import collections

__all__ = [
    "api_channel",
    "api_database",
    "collections",
    "consumer_broker",
    "consumer_cache",
    "consumer_database",
    "data",
    "engine_server",
    "http",
    "link",
    "session",
    "sinks",
    "telegram",
]
