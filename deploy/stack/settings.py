"""What the person at the terminal chose through the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from deploy.stack.errors import StackError

GRPC_PORT = 7400
HTTP_PORT = 7480
PORT_MAX = 65_535


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run a platform on this machine; the defaults suit tests, `from_env` suits people."""

    data_dir: Path
    # Servers to use instead of the embedded ones.
    database_url: str | None = field(default=None, repr=False)
    nats_url: str | None = None
    # The gateway's ports; 0 is any free one.
    grpc_port: int = 0
    http_port: int = 0
    postgres_bin: Path | None = None
    # What every process of the platform inherits.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Reads the environment of this process, or another one."""
        environ = os.environ if environ is None else environ
        postgres_bin = environ.get("RAPPORT_PG_BIN")
        return cls(
            data_dir=Path(environ.get("RAPPORT_DATA_DIR") or ".rapport").absolute(),
            database_url=environ.get("RAPPORT_DATABASE_URL") or None,
            nats_url=environ.get("RAPPORT_NATS_URL") or None,
            grpc_port=_port(environ, "RAPPORT_GRPC_PORT", GRPC_PORT),
            http_port=_port(environ, "RAPPORT_HTTP_PORT", HTTP_PORT),
            postgres_bin=Path(postgres_bin) if postgres_bin else None,
            environment=dict(environ),
        )


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal() or int(value) > PORT_MAX:
        raise StackError(f"{name} is not a port between 0 and {PORT_MAX}: {value!r}")
    return int(value)
