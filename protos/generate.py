"""Generates the Python of every proto into protos/gen; does nothing when no input changed.

google.* is never generated: it comes from protobuf and googleapis-common-protos.
Files appear by rename, so a process that imports meanwhile never sees half a module.
"""

import fcntl
import hashlib
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GEN = ROOT / "protos" / "gen"
STAMP = GEN / ".stamp"
TOOLS = ("grpcio-tools", "mypy-protobuf", "protobuf")


def main() -> None:
    """Brings protos/gen up to date with its inputs."""
    GEN.mkdir(parents=True, exist_ok=True)
    with (GEN / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        inputs = _inputs()
        digest = _digest(inputs)
        if STAMP.exists() and STAMP.read_text() == digest:
            return
        with tempfile.TemporaryDirectory(dir=GEN.parent, prefix=".gen-") as scratch:
            _compile(inputs, Path(scratch))
            written = _publish(Path(scratch))
        STAMP.write_text(digest)
    sys.stderr.write(f"protos: {len(inputs)} inputs, {written} generated files changed\n")


def _inputs() -> list[Path]:
    ours = (ROOT / "protos" / "rapport").rglob("*.proto")
    vendored = (ROOT / "third_party" / "buf").rglob("*.proto")
    return sorted([*ours, *vendored])


def _digest(inputs: list[Path]) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool}={version(tool)}\n".encode())
    for path in inputs:
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(inputs: list[Path], target: Path) -> None:
    from grpc_tools import protoc  # noqa: PLC0415 - slow, and not needed when nothing changed

    plugin = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-mypy={_plugin('protoc-gen-mypy', plugin)}",
            f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc', plugin)}",
            f"-I{ROOT / 'protos'}",
            f"-I{ROOT / 'third_party'}",
            f"-I{_well_known_types()}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet,only_async:{target}",
            *map(str, inputs),
        ]
    )
    if status != 0:
        raise SystemExit(status)
    for empty in target.rglob("*_pb2_grpc.py"):
        if "Stub" not in empty.read_text():
            empty.unlink()
            empty.with_suffix(".pyi").unlink(missing_ok=True)
    for folder in (target / "rapport", *(target / "rapport").rglob("*/")):
        if folder.is_dir():
            (folder / "__init__.py").touch()


def _plugin(name: str, beside: Path) -> str:
    found = shutil.which(name, path=str(beside)) or shutil.which(name)
    if found is None:
        message = f"{name} is not installed: run make setup"
        raise SystemExit(message)
    return found


def _well_known_types() -> Path:
    import grpc_tools  # noqa: PLC0415 - slow, and not needed when nothing changed

    return Path(grpc_tools.__file__).parent / "_proto"


def _publish(scratch: Path) -> int:
    """Moves changed files into place, removes those no input makes any more, and counts them."""
    fresh = {path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file()}
    changed = 0
    for name in sorted(fresh):
        old, new = GEN / name, scratch / name
        if old.exists() and old.read_bytes() == new.read_bytes():
            continue
        old.parent.mkdir(parents=True, exist_ok=True)
        new.replace(old)
        changed += 1
    for old in sorted(GEN.rglob("*.py*")):
        if "__pycache__" not in old.parts and old.relative_to(GEN) not in fresh:
            old.unlink()
            changed += 1
    return changed


if __name__ == "__main__":
    main()
