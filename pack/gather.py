"""Find the files that a node needs from this machine's Python.

These are the modules that it imports, their shared libraries, the dynamic loader and
libc.
"""

import importlib.metadata
import os
import py_compile
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pack.errors import PackError
from pack.strip import strip
from state.project import PROJECT

# Paths in the unpacked node. launcher.c and start.py have the same.
LOADER = "lib/loader"
PYTHON = "bin/python3"
START = "start.py"
_LIBRARIES, _PACKAGES, _CODE = "lib", "packages", "code"

# Parts of the standard library that no conversion needs. The extension modules would
# bring the libraries of OpenSSL, SQLite, Tk and the terminal.
_NO_STANDARD_LIBRARY = {
    *("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib"),
    *("ensurepip", "lib2to3", "pydoc_data", "tkinter", "turtledemo", "venv"),
}
_NO_EXTENSIONS = re.compile(
    r"(_test\w*|_xx\w+|xx\w+|_ctypes_test|_curses\w*|_dbm|_gdbm|_hashlib|_sqlite3"
    r"|_ssl|_tkinter|nis|readline)\."
)
# Parts of the packages that no conversion needs: tests, files for compilers and
# readers, codecs of other formats than JPEG and TIFF, and zstandard's copy for PyPy.
_NO_PACKAGE_FILES = re.compile(
    r"(^|/)(tests?|testing/tests|include|bin|__pycache__|licenses)/"
    r"|\.(a|c|h|hpp|pxd|pyi|pyx|lib|pc)$|(^|/)(RECORD|INSTALLER|REQUESTED)$"
    r"|^numpy/(f2py|distutils)/"
    r"|^PIL/_(avif|imagingcms|imagingft|imagingtk|webp)\."
    r"|^rasterio/(_example|_fill)\.|^rasterio/rio/"
    r"|^zstandard/_cffi\."
    r"|\.libs/"  # ldd finds those that are needed
)
# Files that Python needs before it can unpack and import the others.
_FIRST = re.compile(
    r"/os\.pyc$|/backend_c\.[^/]*so$"
    r"|/encodings/(__init__|aliases|ascii|latin_1|utf_8)\.pyc$"
)


@dataclass(frozen=True)
class Member:
    """A file of the packed node.

    Attributes:
        name: path in the unpacked node.
        file: file that has the content.
        first: whether Python cannot start without it.
        executable: whether the kernel executes it.
    """

    name: str
    file: Path
    first: bool = False
    executable: bool = False


def packages() -> dict[str, str]:
    """Return the versions of the packages that a node needs, by name.

    Raises:
        PackError: one of them is not installed.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    queue = [(line, False) for line in project["dependency-groups"]["node"]]
    versions: dict[str, str] = {}
    while queue:
        requirement, is_conditional = queue.pop()
        name = re.sub(r"[^\w.-].*", "", requirement).lower()
        if name in versions:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if is_conditional:
                continue
            raise PackError(
                f"to pack the node, {sys.executable} must have {name!r} itself: "
                "'pip install --group node' in the clone"
            ) from error
        versions[name] = distribution.version
        for line in distribution.requires or ():
            if "extra ==" not in line:
                queue.append((line, ";" in line))
    return versions


def gather(scratch: Path) -> list[Member]:
    """Return all files of the packed node.

    Args:
        scratch: an empty folder for the files that this function makes.

    Raises:
        PackError: a file is missing, or is of a kind that cannot be packed.
    """
    python = Path(sys.executable).resolve()
    members = [
        _compiled(member, scratch) if member.name.endswith(".py") else member
        for member in (*_standard_library(), *_packages(), *_node())
    ]
    # Python finds the folder of its extension modules by any file in it.
    mark = next((m for m in members if "/lib-dynload/" in m.name), None)
    members = [replace(m, first=m.first or m is mark) for m in members]
    native = [m for m in members if ".so" in PurePosixPath(m.name).suffixes]
    first = _libraries([python, *(m.file for m in native if m.first)])
    for name, file in (_libraries([m.file for m in native]) | first).items():
        members.append(Member(_library_name(name, file), file, name in first))
    members.append(Member(LOADER, _loader(python), first=True, executable=True))
    members.append(Member(PYTHON, python, first=True, executable=True))
    members.append(Member(START, PROJECT / "pack" / "start.py", first=True))
    return [replace(m, file=strip(m.file, scratch)) for m in members]


def _member(name: str, file: Path) -> Member:
    return Member(name, file, first=_FIRST.search(name) is not None)


def _standard_library() -> Iterator[Member]:
    folder = Path(os.__file__).parent
    for file in _walk(folder):
        extension = file.parent.name == "lib-dynload" and file.suffix == ".so"
        if file.suffix == ".py" or (extension and not _NO_EXTENSIONS.match(file.name)):
            yield _member(str(file.relative_to(sys.base_prefix)), file)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _NO_STANDARD_LIBRARY)
        folders[:] = [each for each in folders if not each.startswith("config-")]
        yield from (Path(parent, file) for file in sorted(files))


def _packages() -> Iterator[Member]:
    names = set()
    for package in packages():
        distribution = importlib.metadata.distribution(package)
        for path in distribution.files or ():
            name = str(path)
            if ".." in path.parts or _NO_PACKAGE_FILES.search(name):
                continue
            names.add(name)
            file = Path(str(distribution.locate_file(path)))
            yield _member(f"{_PACKAGES}/{name}", file)
    if "rasterio/proj_data/proj.db" not in names:
        raise PackError(
            "to pack the node, rasterio must be the package of PyPI, which contains "
            "GDAL, PROJ and their data: 'pip install --force-reinstall rasterio'"
        )


def _node() -> Iterator[Member]:
    for file in sorted((PROJECT / "node").glob("*.py")):
        yield Member(f"{_CODE}/node/{file.name}", file)


def _compiled(member: Member, scratch: Path) -> Member:
    """Return the member with the bytecode of a module in place of its source."""
    compiled = scratch / f"{member.name}c"
    compiled.parent.mkdir(parents=True, exist_ok=True)
    py_compile.compile(
        str(member.file),
        str(compiled),
        # The name in tracebacks: the paths of this machine mean nothing elsewhere.
        dfile=member.name,
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    return _member(f"{member.name}c", compiled)


def _libraries(files: Sequence[Path]) -> dict[str, Path]:
    """Return the shared libraries that files are linked with, directly or not, by name.

    Raises:
        PackError: a library is missing.
    """
    output = _ldd(files)
    for name in re.findall(r"^\s+(\S+) => not found", output, re.MULTILINE):
        raise PackError(f"the shared library {name} is missing on this machine")
    libraries = re.findall(r"^\s+(\S+) => (/.+) \(0x", output, re.MULTILINE)
    return {name: Path(os.path.normpath(path)) for name, path in libraries}


def _loader(python: Path) -> Path:
    """Return the dynamic loader of this Python."""
    match = re.search(r"^\s+(/\S+) \(0x", _ldd([python]), re.MULTILINE)
    if match is None:
        raise PackError(f"{python} is not linked dynamically: it cannot be packed")
    return Path(match[1])


def _ldd(files: Sequence[Path]) -> str:
    result = subprocess.run(
        ["ldd", *files],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    if result.returncode != 0:
        raise PackError(f"'ldd' failed: {result.stderr.strip()}")
    return result.stdout


def _library_name(name: str, file: Path) -> str:
    """Return the name of a library's member.

    A package finds its own libraries by their place beside it, so they keep it.
    """
    for package in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        if file.is_relative_to(package):
            return f"{_PACKAGES}/{file.relative_to(package)}"
    return f"{_LIBRARIES}/{name}"
