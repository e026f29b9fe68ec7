"""What crosses the network between the hosts, and who is let in."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest
from probe import secrets_of
from stack import OTHERS, address, fetch, links, query, redis, script
from testinfra.host import Host

On = Callable[[str], Host]
pytestmark = pytest.mark.requirement("OP-05")
PORTS = {"database": 5434, "pgbouncer": 6434, "redis-primary": 6379, "rabbitmq": 5672, "gateway": 4006, "api": 4010}
AUTHORITY = """
cd $(mktemp -d)
cat > ca.key <<'END'
{key}END
openssl req -x509 -new -key ca.key -out ca.crt -days 9 -subj "/CN={authority}" \\
  -addext "basicConstraints=critical,CA:TRUE"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -CA ca.crt -CAkey ca.key -days 9 \\
  -keyout key -out crt -subj "/CN={name}" \\
  -addext "extendedKeyUsage=clientAuth" -addext "basicConstraints=critical,CA:FALSE"
"""
# Who is let in hears PostgreSQL say in one letter whether it speaks TLS of its own.
ASK = (
    "(printf '\\0\\0\\0\\10\\4\\322\\26\\57'; sleep 2)"
    " | timeout 9 openssl s_client -quiet -alpn database {how} -connect {where}:6443"
)


@pytest.mark.parametrize("name", OTHERS)
def test_each_host_reaches_each_other(on: On, name: str) -> None:
    assert links(on(name)) == dict.fromkeys(OTHERS[name], True)


@pytest.mark.parametrize("name", OTHERS)
def test_only_ssh_and_the_links_listen_beyond_loopback(on: On, name: str) -> None:
    listening = [
        found.removeprefix("tcp://") for found in on(name).socket.get_listening_sockets() if found.startswith("tcp://")
    ]
    beyond = {found.rsplit(":", 1)[1] for found in listening if not found.startswith(("127.", "::1"))}
    # EPMD of Erlang, which the rabbitmq-server of Debian starts, listens as its unit of systemd says.
    assert beyond - {"22", "4369"} == {"6443"}


def test_a_stranger_is_not_let_in_at_any_port(on: On) -> None:
    """This machine is on the same network and none of the stack's hosts: the firewall drops what it sends."""
    for name in OTHERS:
        where = address(on(name))
        for port in (6443, *PORTS.values()):
            with pytest.raises(OSError, match=r"timed out|refused"), socket.create_connection((where, port), timeout=1):
                pass
        with socket.create_connection((where, 22), timeout=5):
            pass  # everything else is left alone


def test_without_a_certificate_of_the_stack_nobody_is_let_in(on: On) -> None:
    caller, where = on("cache"), address(on("database"))
    secrets = secrets_of("telegram_secrets.yml")

    def let_in(how: str, make: str = "") -> bool:
        return re.search(r"^[SN]$", script(caller, make + ASK.format(how=how, where=where)), re.MULTILINE) is not None

    def made(key: str, name: str) -> str:
        return AUTHORITY.format(key=secrets[key], authority="Links of the Telegram stack", name=name)

    assert let_in("-cert crt -key key", made("links_ca_key", "mol-cache"))
    assert not let_in("-cert crt -key key -tls1_2", made("links_ca_key", "mol-cache"))
    assert not let_in("-cert crt -key key", made("links_ca_key", "mol-elsewhere"))
    assert not let_in("-cert crt -key key", made("monitoring_ca_key", "mol-cache"))
    assert not let_in("")


def test_a_link_leads_to_nobody_who_only_says_that_he_is_the_host(on: On) -> None:
    """The certificate of one host does not do for another: a link checks whom it has reached."""
    config = on("application").file("/etc/telegram-stack/links/haproxy.cfg").content_string
    servers = [line for line in config.splitlines() if ":6443 " in line and line.strip().startswith("server")]
    assert len(servers) >= 10
    assert all(re.search(r"server (?:link|(mol-\w+)) \S+ verifyhost (mol-\w+)", line) for line in servers), servers


@pytest.mark.parametrize(
    ("port", "user", "password", "refusal"),
    [
        (5434, "telegram_api", "", "no password supplied"),
        (5434, "telegram_api", "wrong", "authentication failed"),
        (6434, "telegram_api", "wrong", "authentication failed"),
        (5434, "postgres", "wrong", "no pg_hba.conf entry"),
        (5434, "telegram_owner", "wrong", "authentication failed"),
    ],
)
def test_whoever_comes_to_the_database_over_a_link_has_to_log_in(
    on: On, port: int, user: str, password: str, refusal: str
) -> None:
    assert refusal in query(on("cache"), port, user, password, "SELECT 1")


def test_whoever_comes_to_cache_queue_or_api_over_a_link_has_to_log_in(on: On) -> None:
    caller = on("application")
    assert "NOAUTH" in redis(caller, 6379, "GET telegram:msg:1:1")
    assert "NOAUTH" in redis(caller, 6380, "GET telegram:msg:1:1")
    assert "WRONGPASS" in redis(caller, 6379, "AUTH telegram_api wrong")
    assert "NOAUTH" in redis(caller, 26379, "SENTINEL masters")
    assert fetch(caller, "http://127.0.0.1:15672/api/overview").startswith("401")
    assert fetch(caller, "http://127.0.0.1:15672/api/overview", "guest:guest").startswith("401")
    assert fetch(on("cache"), "http://127.0.0.1:4010/api/messages").startswith("401")


@pytest.mark.parametrize(
    ("user", "secret", "statement"),
    [
        ("telegram_api", "postgres_api", "DELETE FROM telegram.messages"),
        ("telegram_worker", "postgres_worker", "INSERT INTO telegram.channels (channel_id) VALUES (-1)"),
        ("telegram_ingest", "postgres_ingest", "SELECT count(*) FROM telegram.signals"),
        ("telegram_exporter", "postgres_exporter", "UPDATE telegram.messages SET text = NULL"),
    ],
)
def test_no_role_of_the_database_does_what_is_anothers(on: On, user: str, secret: str, statement: str) -> None:
    password = secrets_of("telegram_secrets.yml")[secret]
    assert "permission denied" in query(on("cache"), 5434, user, password, statement)


def test_no_user_of_redis_does_what_is_anothers(on: On) -> None:
    secrets = secrets_of("telegram_secrets.yml")
    caller = on("application")
    assert "NOPERM" in redis(
        caller, 6379, f"AUTH telegram_exporter {secrets['redis_exporter']}", "GET telegram:msg:1:1"
    )
    assert "NOPERM" in redis(caller, 6379, f"AUTH telegram_api {secrets['redis_api']}", "FLUSHALL")


def test_keys_are_roots_alone(on: On) -> None:
    for name in OTHERS:
        pem = on(name).file("/etc/telegram-stack/credentials/links/links.pem")
        assert (pem.user, pem.mode) == ("root", 0o600)
        assert "PRIVATE KEY" not in on(name).file("/etc/telegram-stack/links/authority.crt").content_string
        assert on(name).run("grep -rl 'EC PRIVATE KEY' /etc/telegram-stack/links").stdout == ""


def test_the_firewall_counts_what_it_drops_and_comes_back_with_the_hosts_own_rules(on: On) -> None:
    host = on("database")
    assert "drop" in host.check_output("nft list table inet telegram_stack")
    host.check_output("systemctl restart nftables.service")
    assert "drop" in host.check_output("nft list table inet telegram_stack")
