"""The style of the repository: what a reviewer would otherwise have to say again and again.

Exceptions are named here, in one place each, with their reason.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LINE_LENGTH_MAX = 100
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Every service has the same files, so who knows one knows all.
SERVICE_FILES = {
    "README.md",
    "__init__.py",
    "__main__.py",
    "decider.py",
    "policies.py",
    "projections.py",
    "service.py",
}
SERVICE_FILES_MISSING = {
    # "service": {"file": "reason"}
    "contacts": {"policies.py": "nothing that happens elsewhere changes a contact"},
    "deals": {"policies.py": "nothing that happens elsewhere changes a deal"},
    "events": {
        "policies.py": "nothing that happens elsewhere makes a customer event",
    },
}

# A call and the one home it is allowed in.
BANNED_CALLS = {
    r"os\.(environ|getenv|putenv)": ("services/kernel/process/config.py", "deploy/"),
    r"(datetime\.)?(datetime|date)\.(now|utcnow|today)|time\.(time|time_ns)": (
        "services/kernel/clock.py",
    ),
    r"print": ("deploy/", "__main__.py", "services/kernel/process/operate.py", "tests/bench/"),
    r"breakpoint|pdb\.\w+|eval|exec": (),
    r"pytest\.mark\.(skip|xfail)": (),  # mend or delete it; skipif names what is missing
}
# A test that waits uses `eventually`; one that guesses a time is slow and still wrong.
BANNED_IN_TESTS = {r"(time|asyncio|anyio)\.sleep": ("tests/bench/",)}

LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")  # tidy: names them
CLASS_WORDS_BANNED = re.compile(r"(Manager|Helper|Util|Utils|Base|Impl|Data|Info)(?![a-z])")
# Names given by others, which we only repeat.
CLASS_NAMES_ALLOWED: set[str] = set()

# Where a package came from and where a checkout lies belong to one machine, not to the project.
MACHINE_PATHS = re.compile(
    r"\bpy(thonhosted|pi)\.org|\bregistry\.(npmjs|yarnpkg)|(extra-)?index-url|find-links"  # tidy
    r"|(?<![\w.~$}-])/(home|root|Users|work)/[\w.]"  # tidy
)
TEXT = {".py", ".pyi", ".md", ".toml", ".yaml", ".yml", ".proto", ".json", ".lock", ".sh", ".sql"}
TEXT |= {"", ".cfg", ".ini", ".txt", ".html", ".js", ".css", ".svg"}

Trees = dict[Path, ast.Module]

LIST_FILES = ("git", "-c", "safe.directory=*", "ls-files", "-z")


def _tracked() -> list[Path]:
    """Lists the files git knows or would add, so that a new file is judged before its commit."""
    command = [*LIST_FILES, "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    return sorted(path for path in paths if (ROOT / path).is_file())


FILES = _tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
OURS = [path for path in FILES if path.suffix in TEXT and path.parts[0] != "third_party"]


def _lines(path: Path) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


# Let go of when the last test here is over: what stays slows the collector down for all tests.
@pytest.fixture(scope="module")
def trees() -> Trees:
    """What each file says, parsed."""
    return {path: ast.parse((ROOT / path).read_bytes()) for path in PYTHON}


@pytest.fixture(scope="module")
def mentioned(trees: Trees) -> list[tuple[Path, int, str]]:
    """Every name that is made use of."""
    return list(_mentioned(trees))


def _walk(trees: Trees, *kinds: type) -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield path, node


def _mentioned(trees: Trees) -> Iterator[tuple[Path, int, str]]:
    """Yields every dotted name and every imported one as (file, line, "time.sleep")."""
    for path, node in _walk(trees, ast.Attribute, ast.Name, ast.ImportFrom):
        if isinstance(node, ast.ImportFrom):
            yield from ((path, node.lineno, f"{node.module}.{name.name}") for name in node.names)
        else:
            yield path, node.lineno, ast.unparse(node)


def _at_home(path: Path, homes: tuple[str, ...]) -> bool:
    return any(path.as_posix().startswith(home) or path.name == home for home in homes)


def test_no_line_is_longer_than_two_columns_allow():
    long = [
        f"{path}:{number}"
        for path in [*PYTHON, *(path for path in OURS if path.suffix == ".proto")]
        for number, line in enumerate(_lines(path), start=1)
        # The formatter of protos writes an rpc in one line, however long.
        if len(line) > LINE_LENGTH_MAX and "://" not in line and not line.startswith("  rpc ")
    ]

    assert not long, "\n".join(long)


def test_no_file_holds_two_ideas():
    long = {f"{path}": count for path in PYTHON if (count := len(_lines(path))) > FILE_LINES_MAX}

    assert {} == long


def test_no_function_holds_two_ideas(trees):
    long = [
        f"{path}:{node.lineno} {node.name}: {count} lines"
        for path, node in _walk(trees, ast.FunctionDef, ast.AsyncFunctionDef)
        if (count := node.end_lineno - node.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert not long, "\n".join(long)


def test_every_module_says_what_it_is(trees):
    silent = [f"{path}" for path, tree in trees.items() if not ast.get_docstring(tree)]

    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("pattern", [*BANNED_CALLS, *BANNED_IN_TESTS])
def test_a_banned_call_stays_in_its_one_home(pattern, mentioned):
    homes = (BANNED_CALLS | BANNED_IN_TESTS)[pattern]
    only_tests = pattern in BANNED_IN_TESTS
    used = [
        f"{path}:{line} {name}"
        for path, line, name in mentioned
        if re.fullmatch(pattern, name)
        and (path.parts[0] == "tests" or not only_tests)
        and not _at_home(path, homes)
    ]

    assert not used, "\n".join(used)


def test_nothing_is_left_for_later():
    left = [
        f"{path}:{number}"
        for path in OURS
        for number, line in enumerate(_lines(path), start=1)
        if LEFTOVERS.search(line) and "# tidy" not in line
    ]

    assert not left, "\n".join(left)


def test_a_class_is_named_for_what_it_is(trees):
    vague = [
        f"{path}:{node.lineno} {node.name}"
        for path, node in _walk(trees, ast.ClassDef)
        if CLASS_WORDS_BANNED.search(node.name) and node.name not in CLASS_NAMES_ALLOWED
    ]

    assert not vague, "\n".join(vague)


def test_no_file_knows_the_machine_it_was_made_on():
    told = [
        f"{path}:{number}"
        for path in OURS
        for number, line in enumerate(_lines(path), start=1)
        if MACHINE_PATHS.search(line) and "# tidy" not in line
    ]

    assert not told, "\n".join(told)


def test_every_service_has_the_same_files():
    services = sorted({path.parts[1] for path in PYTHON if path.match("services/*/*.py")})
    services.remove("kernel")
    missing = []
    for service in services:
        has = {path.name for path in FILES if path.parent == Path("services", service)}
        if Path("services", service, "deciders", "__init__.py") in FILES:
            has.add("decider.py")
        for folder in ("policies", "projections", "service"):
            if Path("services", service, folder, "__init__.py") in FILES:
                has.add(f"{folder}.py")
        excused = set(SERVICE_FILES_MISSING.get(service, {}))
        if lacking := SERVICE_FILES - has - excused:
            missing.append(f"services/{service} lacks {', '.join(sorted(lacking))}")
        assert not excused & has, f"services/{service} has a file it is excused from"

    assert not missing, "\n".join(missing)
