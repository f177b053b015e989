"""Python modules read as text: where they lie and what their names mean, without importing them."""

import ast
import importlib.machinery
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from equiscape.errors import ConfigError

UNKNOWN = object()  # a value that the source does not spell
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, eq=False)  # one object a version of a file
class Module:
    """The top level of a source file.

    Attributes:
        name: dotted.
        path: of the file.
        plugins: folders in which modules that it imports may lie.
        tree: its parsed text.
        names: what is defined in it: classes, functions and assignments.
        imports: local name -> (module, name in that module; empty for the module itself).
    """

    name: str
    path: Path
    plugins: tuple[str, ...]
    tree: ast.Module
    names: Mapping[str, ast.stmt]
    imports: Mapping[str, tuple[str, str]]

    def reaches(self, other: str) -> bool:
        """Whether ``other`` is a module of the same package, of this project or of a plug-in."""
        package = other.partition(".")[0]
        if package in ("equiscape", self.name.partition(".")[0]):
            return True
        return any(_in_folder(Path(folder) / package) for folder in self.plugins)


def find_module(module: str, plugins: Iterable[str | Path] = ()) -> Path | None:
    """The file of ``module``, found without importing it or its parents; None if there is none."""
    package, *inside = module.split(".")
    if package == "equiscape":
        return _in_folder(PACKAGE.joinpath(*inside))
    for folder in plugins:
        if path := _in_folder(Path(folder).joinpath(package, *inside)):
            return path
    spec = importlib.machinery.PathFinder.find_spec(package) if package.isidentifier() else None
    if spec is None:
        return None
    if not inside:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        if path := _in_folder(Path(folder).joinpath(*inside)):
            return path
    return None


def _in_folder(stem: Path) -> Path | None:
    """``stem.py``, or ``stem/__init__.py``."""
    for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def parse(path: Path) -> ast.Module:
    """The parsed source of ``path``.

    Raises:
        ConfigError: it is not valid Python; the message names the line.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8-sig"))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line} of {path}" if line else str(path)
        raise ConfigError(f"{where} is not valid Python; correct it.") from None


def open_module(name: str, plugins: tuple[str, ...]) -> Module | None:
    """The module ``name``, read again only if its file changed; None if there is none."""
    path = find_module(name, plugins)
    if path is None:
        return None
    return read_module(name, path, plugins)


def read_module(name: str, path: Path, plugins: tuple[str, ...] = ()) -> Module:
    """As :func:`open_module`, where its ``path`` is known."""
    stamp = path.stat()
    return _read(name, path, plugins, stamp.st_mtime_ns, stamp.st_size)


@cache
def _read(name: str, path: Path, plugins: tuple[str, ...], mtime: int, size: int) -> Module:
    names: dict[str, ast.stmt] = {}
    imports: dict[str, tuple[str, str]] = {}
    parents = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = parse(path)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            names.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            names[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for a in node.names:
                name_here = f"*{len(imports)}" if a.name == "*" else a.asname or a.name
                imports[name_here] = (base, a.name)
        elif isinstance(node, ast.Import):
            imports.update({a.asname or a.name: (a.name, "") for a in node.names})
    return Module(name, path, plugins, tree, names, imports)


def find(module: Module, name: str, far: bool = False) -> tuple[Module, ast.stmt] | None:
    """Where the class, function or value is defined that ``name`` means in ``module``.

    Args:
        module: where the name is used.
        name: may be dotted, as in ``nn.Linear``.
        far: look into other installed packages too, torch excepted.

    Returns:
        The module and the statement; None where neither is in reach.
    """
    prefix, _, last = name.rpartition(".")
    if not prefix and name in module.names:
        return module, module.names[name]
    if not prefix and name not in module.imports:
        starred = [base for base, inside in module.imports.values() if inside == "*"]
        found = (_follow(module, base, name, far) for base in starred)
        return next((place for place in found if place), None)
    base, inside = module.imports.get(prefix or name, ("", ""))
    if prefix:
        base, inside = ".".join(part for part in (base, inside) if part), last
    return _follow(module, base, inside, far)


def _follow(module: Module, base: str, inside: str, far: bool) -> tuple[Module, ast.stmt] | None:
    """What ``inside`` means in the module ``base``, which ``module`` imports."""
    if not base or not inside or base.partition(".")[0] == "torch" != module.name.split(".")[0]:
        return None
    if not far and not module.reaches(base):
        return None
    other = open_module(base, module.plugins)
    if other is None or other.name == module.name:
        return None
    return find(other, inside, far)


def constants(target: str, plugins: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Values that the source of a module, or of ``"module:Class"``, spells at its top level.

    Of a map that is not spelled out, such as a registry of functions, the keys are given.

    Raises:
        ConfigError: there is no such module, or no such class in it.
    """
    owner, body = body_of(target, plugins)
    found = {}
    for line in body:
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
            names = line.targets if isinstance(line, ast.Assign) else [line.target]
            value = literal(owner, line.value)
            for name in names:
                if isinstance(name, ast.Name) and value is not UNKNOWN:
                    found[name.id] = value
    return found


def body_of(target: str, plugins: Iterable[str | Path] = ()) -> tuple[Module, list[ast.stmt]]:
    """The module in which ``"module"`` or ``"module:Class"`` is defined, and its statements.

    Raises:
        ConfigError: there is no such module, or no such class in it.
    """
    module_name, _, name = target.partition(":")
    module = open_module(module_name, tuple(str(folder) for folder in plugins))
    if module is None:
        raise no_module(target)
    if not name:
        return module, module.tree.body
    found = find(module, name, far=True)
    if found is None or not isinstance(found[1], ast.ClassDef):
        raise ConfigError(f"{target}: {module.path} has no class {name!r}; name one that it has.")
    return found[0], found[1].body


def no_module(target: str) -> ConfigError:
    """The error for a ``target`` whose module is not to be found."""
    return ConfigError(
        f"{target}: there is no module {target.partition(':')[0]!r}; "
        "name a folder that holds it under plugins, or install it."
    )


def literal(module: Module, node: ast.expr) -> Any:
    """The value of a literal, or of a name that the module gives one; else UNKNOWN."""
    if isinstance(node, ast.Name | ast.Attribute):
        found = find(module, ast.unparse(node))
        if found and isinstance(found[1], ast.Assign | ast.AnnAssign):
            value = found[1].value
            return UNKNOWN if value is None else literal(found[0], value)
        return UNKNOWN
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        pass
    if isinstance(node, ast.Dict):  # a registry: its names
        return tuple(k.value for k in node.keys if isinstance(k, ast.Constant))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "tuple" and len(node.args) == 1:
        found = literal(module, node.args[0])
        return tuple(found) if isinstance(found, tuple | list | dict) else UNKNOWN
    if isinstance(node, ast.Tuple | ast.List):
        parts = [_items(module, item) for item in node.elts]
        return UNKNOWN if UNKNOWN in parts else tuple(item for part in parts for item in part)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # tuples put together
        left, right = literal(module, node.left), literal(module, node.right)
        if isinstance(left, tuple) and isinstance(right, tuple):
            return left + right
    return UNKNOWN


def _items(module: Module, node: ast.expr) -> Any:
    """What an element gives a tuple: itself, or, starred, the items of a constant."""
    starred = isinstance(node, ast.Starred)
    value = literal(module, node.value if isinstance(node, ast.Starred) else node)
    if value is UNKNOWN or (starred and not isinstance(value, tuple | list | dict)):
        return UNKNOWN
    return tuple(value) if starred else (value,)


def plugin_files(targets: Iterable[str], plugins: Iterable[str | Path]) -> list[Path]:
    """Files in the ``plugins`` folders that modules of ``targets`` are made of.

    What such a module imports from the same folders counts too.
    """
    folders = tuple(str(folder) for folder in plugins)
    waiting = [target.partition(":")[0] for target in targets]
    found: dict[Path, None] = {}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not name or name.partition(".")[0] == "equiscape":
            continue
        seen.add(name)
        path = find_module(name, folders)
        if path is None or not any(path.is_relative_to(folder) for folder in folders):
            continue
        found[path] = None
        opened = open_module(name, folders)
        for base, inside in opened.imports.values() if opened else ():
            waiting += [base, f"{base}.{inside}" if inside else base]
    return sorted(found)
