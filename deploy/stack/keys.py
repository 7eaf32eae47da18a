"""The secrets and API keys of the development workspace, made once and kept.

`secrets.json` holds what only this machine may know; `keys.json` is what the gateway reads: each
key as the HMAC-SHA256 of its secret under the pepper, so that the file alone opens nothing.
"""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WORKSPACE = "development"


@dataclass(frozen=True, kw_only=True)
class DevelopmentSecrets:
    """Everything secret of one data directory."""

    internal_secret: str = field(repr=False)
    key_pepper: str = field(repr=False)
    api_key: str = field(repr=False)
    write_key: str = field(repr=False)


def development_secrets(data_dir: Path) -> DevelopmentSecrets:
    """The secrets of a data directory, made at the first call."""
    path = data_dir / "secrets.json"
    if path.exists():
        return DevelopmentSecrets(**json.loads(path.read_text()))
    made = DevelopmentSecrets(
        internal_secret=secrets.token_hex(32),
        key_pepper=secrets.token_hex(32),
        api_key=_new_key("rk"),
        write_key=_new_key("wk"),
    )
    write_private(path, asdict(made))
    return made


def keys_file(data_dir: Path, known: DevelopmentSecrets) -> Path:
    """The file of API keys for the gateway, made unless it is there: keys added by hand stay."""
    path = data_dir / "keys.json"
    if not path.exists():
        api = _record(known.api_key, known.key_pepper, kind="api", scopes=["*"])
        source = _record(known.write_key, known.key_pepper, kind="source", scopes=["events.write"])
        write_private(path, {"keys": [api, source]})
    return path


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON that only its owner can read; complete or not at all."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(descriptor)
    Path(unfinished).replace(path)


def _new_key(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(8)}_{secrets.token_hex(32)}"


def _record(key: str, pepper: str, *, kind: str, scopes: list[str]) -> dict[str, Any]:
    _, key_id, secret = key.split("_")
    digest = hmac.new(pepper.encode(), secret.encode(), hashlib.sha256).hexdigest()
    return {"id": key_id, "hash": digest, "workspace": WORKSPACE, "scopes": scopes, "kind": kind}
