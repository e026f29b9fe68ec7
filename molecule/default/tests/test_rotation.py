"""After a rotation under load: nothing was lost, new secrets open everything, old ones nothing."""

from __future__ import annotations

import json

import pytest
from probe import STATE, run_python, secrets_of, telegram, wait_until
from test_chain import effects, once, shown, stored
from testinfra.host import Host

# Each secret that logs in somewhere, and where that succeeds.
LOG_INS = """
import json, pika, psycopg, redis, urllib.request
secrets = json.loads(SECRETS)
def postgresql(user, port=5434, name="telegram_gateway"):
    return lambda password: psycopg.connect(
        host="127.0.0.1", port=port, user=user, password=password, dbname=name, autocommit=True).close()
def cache(user, *ports):
    def log_in(password):
        for port in ports:
            redis.Redis(host="127.0.0.1", port=port, username=user, password=password).ping()
    return log_in
def broker(user):
    return lambda password: pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", 5672, "telegram", pika.PlainCredentials(user, password))).close()
def api(token):
    asked = urllib.request.Request("http://127.0.0.1:4010/api/channels", headers={"X-API-Key": token})
    urllib.request.urlopen(asked, timeout=10).read()
doors = {
    "pgbouncer_lookup": postgresql("pgbouncer_lookup"),
    "pgbouncer_stats": postgresql("pgbouncer_stats", 6434, "pgbouncer"),
    "redis_sentinel": cache("telegram_sentinel", 6379, 6380, 26379),
    "redis_sentinel_client": cache("telegram_sentinel_client", 26379),
}
for user in ("owner", "ingest", "api", "worker", "exporter", "feed"):
    doors["postgres_" + user] = postgresql("telegram_" + user)
for user in ("gateway", "worker", "api", "exporter", "replication"):
    doors["redis_" + user] = cache("telegram_" + user, 6379, 6380)
for user in ("gateway", "worker", "monitor", "admin"):
    doors["rabbitmq_" + user] = broker("telegram_" + user)
for scope in ("read", "write"):
    doors["api_token_" + scope] = api
said = {}
for name, door in doors.items():
    try:
        door(secrets[name])
        said[name] = ""
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""
REFUSALS = ("authentication failed", "invalid username-password pair", "ACCESS_REFUSED", "401")


def refused(host: Host, secrets: dict[str, str]) -> dict[str, str]:
    """By name of secret the words with which it was refused, empty when it opened its door."""
    said: dict[str, str] = run_python(host, LOG_INS.replace("SECRETS", repr(json.dumps(secrets))))
    return said


@pytest.mark.requirement("OP-03")
def test_every_message_posted_during_the_rotation_is_stored_and_takes_effect_once(host: Host) -> None:
    assert not telegram().ask("GET", "/load")["running"]
    keys = shown()
    assert len(keys) > 100
    wait_until("every message stored", 60, lambda: stored(host, keys) == once(keys))
    wait_until("every effect", 60, lambda: effects(host, keys) == once(keys))


@pytest.mark.requirement("OP-03")
def test_new_secrets_open_everything(host: Host) -> None:
    said = refused(host, secrets_of("telegram_secrets.yml"))
    assert {name: words for name, words in said.items() if words} == {}


@pytest.mark.requirement("OP-03")
def test_old_secrets_open_nothing(host: Host) -> None:
    said = refused(host, secrets_of("telegram_secrets.yml.before"))
    opened = {name: words for name, words in said.items() if not any(refusal in words for refusal in REFUSALS)}
    assert opened == {}


@pytest.mark.requirement("OP-03")
def test_all_secrets_that_can_be_rotated_are_new_and_the_rotation_left_no_file() -> None:
    old, new = secrets_of("telegram_secrets.yml.before"), secrets_of("telegram_secrets.yml")
    kept = {"gateway_session_key", "backup_passphrase", "grafana_admin", "legacy_feed_word", "links_ca_key"}
    assert {name for name in old if old[name] == new[name]} == kept
    assert not (STATE / "telegram_secrets.yml.new").exists()
