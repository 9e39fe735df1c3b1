"""Structure: how the code hangs together, in figures: import levels, imports that run upwards, cycles, long things.

    python tools/structure.py [--root CHECKOUT] [--rooms FILE]

Imports are read from the source, those inside functions too; what only a type checker sees does not count. The order of
packages is the import contract of pyproject.toml. `--rooms` maps modules to packages of that order, as JSON
`{"qr_core.reader": "reading"}`, for a checkout that is laid out in another way.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = "qr_core"
SOURCES = (PACKAGE, "integrations")
MAX_PARAMETERS = 12
MAX_LINES = 300

Graph = dict[str, set[str]]
"""For each module (or package), those that it imports."""


class Structure(NamedTuple):
    """What the code of a checkout looks like."""

    modules: Graph
    packages: Graph
    flat: list[str]
    upward: list[tuple[str, str]]
    long_signatures: list[tuple[str, int]]
    long_files: list[tuple[str, int]]

    def figures(self) -> dict[str, int]:
        """Name and figure of everything that is printed."""
        return {
            "modules": len(self.modules),
            f"files directly in {PACKAGE}/": len(self.flat),
            "import levels of modules": levels(self.modules),
            "import levels of packages": levels(self.packages),
            "upward imports": len(self.upward),
            "cycles between packages": len(cycles(self.packages)),
            "cycles between modules": len(cycles(self.modules)),
            f"functions with more than {MAX_PARAMETERS} parameters": len(self.long_signatures),
            f"files of more than {MAX_LINES} lines": len(self.long_files),
        }


def inspect(root: Path, order: list[list[str]], rooms: Mapping[str, str] | None = None) -> Structure:
    """Read a checkout.

    Parameters
    ----------
    root : Path
        The checkout.
    order : list of lists of str
        Packages from the highest to the lowest; those of one list are at the same height.
    rooms : mapping of str to str, optional
        The package of a module where its name does not say it.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for source in SOURCES for path in (root / source).rglob("*.py")}
    files = {_module(path, root): path for path in trees if path.is_relative_to(root / PACKAGE)}
    later = {name: _promised(trees[path]) for name, path in files.items() if path.name == "__init__.py"}
    modules = {
        name: {found for target in _imported(trees[path]) if (found := _resolve(target, files, later)) != name}
        for name, path in files.items()
    }
    modules = {name: targets & modules.keys() for name, targets in modules.items()}
    room = {name: (rooms or {}).get(name) or name.partition(".")[2].partition(".")[0] for name in modules}
    height = {package: -place for place, layer in enumerate(order) for package in layer}
    packages: Graph = {package: set() for package in room.values()}
    for name, targets in modules.items():
        packages[room[name]] |= {room[target] for target in targets} - {room[name]}
    sizes = {path.relative_to(root).as_posix(): len(path.read_text("utf-8").splitlines()) for path in trees}
    return Structure(
        modules,
        packages,
        flat=sorted(path.name for path in (root / PACKAGE).glob("*.py")),
        upward=sorted(
            (name, target)
            for name, targets in modules.items()
            for target in targets
            if room[name] in height and room[target] in height and height[room[target]] > height[room[name]]
        ),
        long_signatures=sorted(
            (f"{path.relative_to(root).as_posix()}:{function.lineno} {function.name}", count)
            for path, tree in trees.items()
            for function in ast.walk(tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            if (count := parameters(function)) > MAX_PARAMETERS
        ),
        long_files=sorted((name, lines) for name, lines in sizes.items() if lines > MAX_LINES),
    )


def contract(root: Path) -> list[list[str]]:
    """The packages of the import contract, from the highest to the lowest."""
    text = (root / "pyproject.toml").read_text("utf-8")
    (layers,) = re.findall(r"^layers = (\[.*?^\])", text, re.DOTALL | re.MULTILINE)  # Python 3.10 has no tomllib
    return [re.findall(r"\w+", layer) for layer in ast.literal_eval(layers)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function takes, `self` and `cls` not counted."""
    arguments = function.args
    named = [found.arg for found in (*arguments.posonlyargs, *arguments.args)]
    own = named[:1] in (["self"], ["cls"])
    return len(named) - own + len(arguments.kwonlyargs) + bool(arguments.vararg) + bool(arguments.kwarg)


def cycles(graph: Graph) -> list[list[str]]:
    """Groups of two or more that import each other, straight or through others."""
    groups = {frozenset(group) for group in _groups(graph).values() if len(group) > 1}
    return sorted(sorted(group) for group in groups)


def levels(graph: Graph) -> int:
    """Length of the longest chain of imports, where a cycle counts as one."""
    group = _groups(graph)
    known: dict[frozenset[str], int] = {}

    def level(members: frozenset[str]) -> int:
        if members not in known:
            below = {group[target] for name in members for target in graph[name]} - {members}
            known[members] = 1 + max(map(level, below), default=0)
        return known[members]

    return max(map(level, group.values()), default=0)


def _groups(graph: Graph) -> dict[str, frozenset[str]]:
    """For each node, the nodes that it reaches and that reach it, itself included."""
    reached = {}
    for start in graph:
        reached[start], left = {start}, [start]
        while left:
            new = graph[left.pop()] - reached[start]
            reached[start] |= new
            left += new
    return {name: frozenset(found for found in reached[name] if name in reached[found]) for name in graph}


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        left += node.orelse if _is_for_types(node) else ast.iter_child_nodes(node)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of every import that runs."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def _promised(tree: ast.Module) -> dict[str, str]:
    """Names that a package exports lazily, which a type checker is told about, with their modules."""
    blocks = [node for node in tree.body if _is_for_types(node)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


def _resolve(target: tuple[str, str], files: Mapping[str, Path], later: Mapping[str, Mapping[str, str]]) -> str:
    """The module that an import reaches: a submodule, the one behind a package's lazy name, or the one it names."""
    module, name = target
    return f"{module}.{name}" if f"{module}.{name}" in files else later.get(module, {}).get(name, module)


def main() -> None:
    """Print figures and what they count."""
    own = Path(__file__).parents[1]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", type=Path, default=own, help="the checkout to look at")
    options.add_argument("--rooms", type=Path, help="JSON: the package of modules that lie elsewhere")
    given = options.parse_args()
    found = inspect(given.root, contract(own), given.rooms and json.loads(given.rooms.read_text("utf-8")))
    for name, figure in found.figures().items():
        print(f"{figure:5}  {name}")
    for name, target in found.upward:
        print(f"upward: {name} -> {target}")
    for group in cycles(found.packages) + cycles(found.modules):
        print(f"cycle: {', '.join(group)}")
    for where, count in found.long_signatures:
        print(f"{count} parameters: {where}")
    for where, count in found.long_files:
        print(f"{count} lines: {where}")


if __name__ == "__main__":
    main()
