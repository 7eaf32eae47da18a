"""The environment is read as a whole: everything wrong is said at once, and no secret is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from services.kernel.process.config import ConfigError, GatewayConfig, ServiceConfig

SECRET = "0123456789abcdef0123456789abcdef"
COMMON = {
    "RAPPORT_GRPC_ADDRESS": "127.0.0.1:7000",
    "RAPPORT_METRICS_ADDRESS": "127.0.0.1:9000",
    "RAPPORT_INTERNAL_SECRET": SECRET,
    "RAPPORT_CONTACTS_ADDRESS": "contacts:7000",
}
SERVICE = {
    **COMMON,
    "RAPPORT_DATABASE_URL": "postgresql://rapport:hush@db1,db2/rapport_contacts",
    "RAPPORT_NATS_URL": "nats://127.0.0.1:4222",
}
GATEWAY = {
    **COMMON,
    "RAPPORT_HTTP_ADDRESS": "[::]:8080",
    "RAPPORT_API_KEYS_FILE": "keys.json",
    "RAPPORT_KEY_PEPPER": SECRET[::-1],
}


def test_a_service_is_told_what_it_needs():
    config = ServiceConfig.from_env("deals", peers=["contacts"], environ=SERVICE)

    assert (config.name, config.database_url) == ("deals", SERVICE["RAPPORT_DATABASE_URL"])
    assert dict(config.peers) == {"contacts": "contacts:7000"}
    assert (config.partitions, config.drain_timeout_s, config.log_format) == (1, 20, "auto")
    assert config.nats_replicas == 1
    assert config.internal_secret == SECRET.encode()


def test_the_gateway_is_told_what_it_needs():
    config = GatewayConfig.from_env(peers=["contacts"], environ=GATEWAY)

    assert (config.name, config.http_address) == ("gateway", "[::]:8080")
    assert config.api_keys_file == Path("keys.json")


def test_everything_that_is_missing_is_said_at_once():
    with pytest.raises(ConfigError) as raised:
        ServiceConfig.from_env("deals", peers=["contacts"], environ={})

    assert set(raised.value.problems) == {f"{name} is missing" for name in SERVICE}


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("RAPPORT_GRPC_ADDRESS", "7000", "RAPPORT_GRPC_ADDRESS is not host:port: '7000'"),
        ("RAPPORT_GRPC_ADDRESS", "a:70000", "RAPPORT_GRPC_ADDRESS is not host:port: 'a:70000'"),
        (
            "RAPPORT_INTERNAL_SECRET",
            "hush",
            "RAPPORT_INTERNAL_SECRET is shorter than 32 characters",
        ),
        ("RAPPORT_PARTITIONS", "0", "RAPPORT_PARTITIONS is not between 1 and 1024: '0'"),
        ("RAPPORT_PARTITIONS", "two", "RAPPORT_PARTITIONS is not between 1 and 1024: 'two'"),
        ("RAPPORT_PARTITIONS", "1.5", "RAPPORT_PARTITIONS is not a whole number: 1.5"),
        ("RAPPORT_NATS_REPLICAS", "0", "RAPPORT_NATS_REPLICAS is not between 1 and 5: '0'"),
        ("RAPPORT_NATS_REPLICAS", "6", "RAPPORT_NATS_REPLICAS is not between 1 and 5: '6'"),
        (
            "RAPPORT_DRAIN_TIMEOUT_S",
            "nan",
            "RAPPORT_DRAIN_TIMEOUT_S is not between 0 and 600: 'nan'",
        ),
        (
            "RAPPORT_LOG_FORMAT",
            "xml",
            "RAPPORT_LOG_FORMAT is not one of json, console, auto: 'xml'",
        ),
        (
            "RAPPORT_DATABASE_URL",
            "mysql://u:hush@h/d",
            "RAPPORT_DATABASE_URL does not start with postgresql:// or postgres://",
        ),
        ("RAPPORT_NATS_URL", "hush", "RAPPORT_NATS_URL does not start with nats:// or tls://"),
    ],
)
def test_what_is_ill_is_said_without_a_secret(variable, value, problem):
    with pytest.raises(ConfigError) as raised:
        ServiceConfig.from_env("deals", environ={**SERVICE, variable: value})

    assert raised.value.problems == (problem,)
    assert "hush" not in str(raised.value)


def test_no_secret_is_shown():
    service = ServiceConfig.from_env("deals", environ=SERVICE)
    gateway = GatewayConfig.from_env(environ=GATEWAY)

    shown = f"{service!r}{gateway!r}"
    assert not [secret for secret in ("hush", SECRET, SECRET[::-1]) if secret in shown]


def test_what_was_read_stays():
    config = ServiceConfig.from_env("deals", environ=SERVICE)

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.partitions = 2


def test_the_gateway_is_told_how_often_a_source_may_send_and_through_whom():
    usual = GatewayConfig.from_env(environ=GATEWAY)
    chosen = GatewayConfig.from_env(
        environ=GATEWAY
        | {
            "RAPPORT_REQUESTS_PER_S": "0.5",
            "RAPPORT_REQUESTS_BURST": "10",
            "RAPPORT_PROXY_HOPS": "2",
        }
    )

    assert (usual.requests_per_s, usual.requests_burst, usual.proxy_hops) == (1000, 2000, 0)
    assert (chosen.requests_per_s, chosen.requests_burst, chosen.proxy_hops) == (0.5, 10, 2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RAPPORT_REQUESTS_PER_S", "0"),
        ("RAPPORT_REQUESTS_BURST", "0"),
        ("RAPPORT_REQUESTS_BURST", "1.5"),
        ("RAPPORT_PROXY_HOPS", "-1"),
        ("RAPPORT_PROXY_HOPS", "11"),
    ],
)
def test_the_gateway_does_not_start_with_a_limit_that_is_none(variable, value):
    with pytest.raises(ConfigError) as raised:
        GatewayConfig.from_env(environ=GATEWAY | {variable: value})

    assert variable in str(raised.value)
