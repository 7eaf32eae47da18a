"""What a process is told by its environment: read once, and checked as a whole.

It is read at the composition root; nothing else reads the environment; everything else receives
values. All that is missing or ill is reported together, and neither `repr` nor an error ever shows
a secret.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self, TypedDict, cast, get_args
from urllib.parse import urlsplit

LogFormat = Literal["json", "console", "auto"]

SECRET_LENGTH_MIN = 32
PARTITIONS_MAX = 1024
NATS_REPLICAS_MAX = 5
DRAIN_TIMEOUT_S_DEFAULT = 20.0
DRAIN_TIMEOUT_S_MAX = 600.0
TRACE_RATIO_DEFAULT = 0.01
REQUESTS_PER_S_DEFAULT = 1000.0
REQUESTS_PER_S_MIN = 0.01
REQUESTS_BURST_DEFAULT = 2000
REQUESTS_MAX = 1_000_000
PROXY_HOPS_MAX = 10
_PORT_MAX = 65535


class ConfigError(Exception):
    """When the environment is not fit to start with; lists every problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the environment is not fit to start:\n  " + "\n  ".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """What every process of the platform is told."""

    name: str
    grpc_address: str
    metrics_address: str
    internal_secret: bytes = field(repr=False)
    # Where the peers that the composition root asked for are, by name.
    peers: Mapping[str, str]
    log_format: LogFormat
    drain_timeout_s: float
    # Where spans go (OTLP over gRPC), and the share of calls that is traced; empty: nowhere.
    traces_address: str
    trace_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig(ProcessConfig):
    """What a service is told."""

    database_url: str = field(repr=False)
    nats_url: str = field(repr=False)
    partitions: int
    # How many NATS servers keep each of its feeds.
    nats_replicas: int

    @classmethod
    def from_env(
        cls,
        name: str,
        *,
        peers: Sequence[str] = (),
        may_ask: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Reads the environment of the service `name`.

        It needs the addresses of `peers`, and takes those of whom it `may_ask` if they are there.
        """
        read = _Reader(os.environ if environ is None else environ)
        database_url = read.url("RAPPORT_DATABASE_URL", schemes=("postgresql", "postgres"))
        nats_url = read.url("RAPPORT_NATS_URL", schemes=("nats", "tls"))
        partitions = read.whole("RAPPORT_PARTITIONS", default=1, least=1, most=PARTITIONS_MAX)
        nats_replicas = read.whole(
            "RAPPORT_NATS_REPLICAS", default=1, least=1, most=NATS_REPLICAS_MAX
        )
        common = read.common(peers, may_ask)
        read.complain()
        return cls(
            name=name,
            database_url=database_url,
            nats_url=nats_url,
            partitions=partitions,
            nats_replicas=nats_replicas,
            **common,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(ProcessConfig):
    """What the gateway is told."""

    http_address: str
    api_keys_file: Path
    key_pepper: bytes = field(repr=False)
    # How many tracking requests a source may send each second, and how many at once.
    requests_per_s: float
    requests_burst: int
    # How many proxies in front write down whom they speak for (X-Forwarded-For).
    proxy_hops: int

    @classmethod
    def from_env(
        cls, *, peers: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> Self:
        """Reads the environment of the gateway, which needs the addresses of `peers`."""
        read = _Reader(os.environ if environ is None else environ)
        http_address = read.address("RAPPORT_HTTP_ADDRESS")
        api_keys_file = Path(read.text("RAPPORT_API_KEYS_FILE"))
        key_pepper = read.secret("RAPPORT_KEY_PEPPER")
        requests_per_s = read.number(
            "RAPPORT_REQUESTS_PER_S",
            default=REQUESTS_PER_S_DEFAULT,
            least=REQUESTS_PER_S_MIN,
            most=REQUESTS_MAX,
        )
        requests_burst = read.whole(
            "RAPPORT_REQUESTS_BURST", default=REQUESTS_BURST_DEFAULT, least=1, most=REQUESTS_MAX
        )
        proxy_hops = read.whole("RAPPORT_PROXY_HOPS", default=0, least=0, most=PROXY_HOPS_MAX)
        common = read.common(peers)
        read.complain()
        return cls(
            name="gateway",
            http_address=http_address,
            api_keys_file=api_keys_file,
            key_pepper=key_pepper,
            requests_per_s=requests_per_s,
            requests_burst=requests_burst,
            proxy_hops=proxy_hops,
            **common,
        )


class _Common(TypedDict):
    """The part that `_Reader.common` reads: the fields of `ProcessConfig` but its name."""

    grpc_address: str
    metrics_address: str
    internal_secret: bytes
    peers: Mapping[str, str]
    log_format: LogFormat
    drain_timeout_s: float
    traces_address: str
    trace_ratio: float


class _Reader:
    """Reads variables one by one and keeps what is wrong with them until `complain`.

    An ill variable reads as something of the right type that is never seen, because `complain`
    raises first.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def complain(self) -> None:
        if self._problems:
            raise ConfigError(self._problems)

    def common(self, peers: Sequence[str], may_ask: Sequence[str] = ()) -> _Common:
        addresses = {peer: self.address(f"RAPPORT_{peer.upper()}_ADDRESS") for peer in peers}
        for peer in may_ask:
            if address := self.address(f"RAPPORT_{peer.upper()}_ADDRESS", default=""):
                addresses[peer] = address
        return _Common(
            grpc_address=self.address("RAPPORT_GRPC_ADDRESS"),
            metrics_address=self.address("RAPPORT_METRICS_ADDRESS"),
            internal_secret=self.secret("RAPPORT_INTERNAL_SECRET"),
            peers=MappingProxyType(addresses),
            log_format=self.log_format(),
            drain_timeout_s=self.number(
                "RAPPORT_DRAIN_TIMEOUT_S",
                default=DRAIN_TIMEOUT_S_DEFAULT,
                least=0,
                most=DRAIN_TIMEOUT_S_MAX,
            ),
            traces_address=self.address("RAPPORT_TRACES_ADDRESS", default=""),
            trace_ratio=self.number(
                "RAPPORT_TRACE_RATIO", default=TRACE_RATIO_DEFAULT, least=0, most=1
            ),
        )

    def text(self, variable: str, *, default: str | None = None) -> str:
        value = self._environ.get(variable, "").strip()
        if value:
            return value
        if default is None:
            self._problems.append(f"{variable} is missing")
            return ""
        return default

    def secret(self, variable: str) -> bytes:
        value = self.text(variable)
        if value and len(value) < SECRET_LENGTH_MIN:
            self._problems.append(f"{variable} is shorter than {SECRET_LENGTH_MIN} characters")
        return value.encode()

    def address(self, variable: str, *, default: str | None = None) -> str:
        """Reads `host:port`, or several of them with commas between."""
        value = self.text(variable, default=default)
        for address in filter(None, value.split(",")):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdecimal() or int(port) > _PORT_MAX:
                self._problems.append(f"{variable} is not host:port: {address!r}")
        return value

    def url(self, variable: str, *, schemes: Sequence[str]) -> str:
        """Reads a URL; an ill one is not repeated, it may hold a password."""
        value = self.text(variable)
        if value and urlsplit(value).scheme not in schemes:
            wanted = " or ".join(f"{scheme}://" for scheme in schemes)
            self._problems.append(f"{variable} does not start with {wanted}")
        return value

    def number(self, variable: str, *, default: float, least: float, most: float) -> float:
        value = self.text(variable, default=str(default))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            self._problems.append(f"{variable} is not between {least:g} and {most:g}: {value!r}")
            return float(default)
        return number

    def whole(self, variable: str, *, default: int, least: int, most: int) -> int:
        number = self.number(variable, default=default, least=least, most=most)
        if not number.is_integer():
            self._problems.append(f"{variable} is not a whole number: {number:g}")
        return int(number)

    def log_format(self) -> LogFormat:
        value = self.text("RAPPORT_LOG_FORMAT", default="auto")
        if value not in get_args(LogFormat):
            wanted = ", ".join(get_args(LogFormat))
            self._problems.append(f"RAPPORT_LOG_FORMAT is not one of {wanted}: {value!r}")
        return cast("LogFormat", value)
