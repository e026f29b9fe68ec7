"""The collection's filters."""

import base64
import subprocess
from pathlib import Path

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.local_address import local_address
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.new_secret import new_secret
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.unknown_variables import (
    find_unknown,
    unknown_variables,
)

KNOWN = {"pgbouncer_pool_size", "pgbouncer_port", "telegram_database_port"}
PREFIXES = ("pgbouncer_", "telegram_")


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret("postgres_owner") for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 32 for secret in made)


def test_a_session_key_is_a_fernet_key() -> None:
    assert len(base64.urlsafe_b64decode(new_secret("gateway_session_key"))) == 32


def test_an_authoritys_key_is_one_of_its_own_that_openssl_reads() -> None:
    made = [new_secret("monitoring_ca_key") for _ in range(2)]
    assert made[0] != made[1]
    shown = subprocess.run(
        ["openssl", "ec", "-text", "-noout"], input=made[0], capture_output=True, text=True, check=True
    )
    assert "prime256v1" in shown.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pgbouncer_pol_size", "no role knows the variable pgbouncer_pol_size; did you mean pgbouncer_pool_size?"),
        ("pgbuncer_pool_size", "no role knows the variable pgbuncer_pool_size; did you mean pgbouncer_pool_size?"),
        ("telegram_zzz", "no role knows the variable telegram_zzz"),
    ],
)
def test_a_misspelt_setting_is_named_with_the_nearest_known_one(name: str, sentence: str) -> None:
    assert find_unknown([name], KNOWN, PREFIXES) == [sentence]


@pytest.mark.parametrize("name", ["pgbouncer_port", "_pgbouncer_x", "ansible_host", "app_port", "backup_dir"])
def test_known_internal_and_foreign_variables_pass(name: str) -> None:
    assert find_unknown([name], KNOWN, PREFIXES) == []


def test_every_setting_of_every_role_is_known() -> None:
    assert unknown_variables(["telegram_database_port", "telegram_secrets"], str(Path("roles"))) == []


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - as inventories write it
        ("::", "127.0.0.1"),
        ("*", "127.0.0.1"),
        ("10.2.0.7", "10.2.0.7"),
        ("::1", "::1"),
    ],
)
def test_what_listens_everywhere_is_asked_on_the_loopback(listens: str, asked: str) -> None:
    assert local_address(listens) == asked
