"""The rooms of the project import each other in one direction."""

import ast
from collections.abc import Iterator
from pathlib import Path

from state.project import PROJECT

# The rooms that each room may import besides itself. CONTRIBUTING.md describes them.
GROUND = {"state", "bucket", "s3"}
MAY_IMPORT = {
    "cog_pipeline": {"cli", "ops", "post", *GROUND},
    "cli": {
        "ops",
        "ingest",
        "catalog",
        "dag",
        "post",
        "condor",
        "pack",
        "pool",
        *GROUND,
    },
    "ops": {"post", "condor", *GROUND},
    "ingest": GROUND,
    "catalog": {"post", "condor", *GROUND},
    "dag": {"post", "condor", *GROUND},
    "post": {"condor", *GROUND},
    "condor": GROUND,
    "pack": GROUND,
    "pool": GROUND,
    "state": {"bucket", "s3"},
    "bucket": {"s3"},
    "s3": set(),
    "node": set(),
}
# The contract of the node with the rest; every room may import it.
CONTRACT = {
    f"node.{name}" for name in ("errors", "multipart", "options", "result", "sidecars")
}
ROOMS = MAY_IMPORT.keys()


def files_of(room: str) -> list[Path]:
    single = PROJECT / f"{room}.py"
    return [single] if single.exists() else sorted((PROJECT / room).rglob("*.py"))


def imports_of(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """Return the module of a dotted name, without what is imported from it."""
    path = PROJECT.joinpath(*name.split("."))
    is_module = path.with_suffix(".py").exists() or path.is_dir()
    return name if is_module else name.rpartition(".")[0]


def test_every_import_goes_down():
    # pack/start.py runs inside the packed node, so it may import the node.
    wrong = [
        f"{file.relative_to(PROJECT)} imports {name}"
        for room, allowed in MAY_IMPORT.items()
        for file in files_of(room)
        for name in map(module_of, imports_of(file))
        if (top := name.partition(".")[0]) in ROOMS
        and top not in {room, *allowed}
        and name not in CONTRACT
        and (file.name, top) != ("start.py", "node")
    ]
    assert not wrong


def test_there_are_no_import_cycles():
    graph = {}
    for room in ROOMS:
        for file in files_of(room):
            parts = file.relative_to(PROJECT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            graph[name] = {module_of(import_) for import_ in imports_of(file)}
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_every_room_has_a_rule():
    folders = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert folders - {"demo", "lab", "tests"} <= ROOMS


def test_no_test_imports_another_test():
    wrong = [
        f"{file.name} imports {name}"
        for folder in ("tests", "lab")
        for file in (PROJECT / folder).rglob("*.py")
        for name in imports_of(file)
        if name.startswith(("tests.test_", "tests.conftest"))
    ]
    assert not wrong
