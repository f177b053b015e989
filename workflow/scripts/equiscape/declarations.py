"""The settings that a class or a function declares, read from its source without importing it.

So every Snakemake process can check a configuration, and none of them imports torch. A setting is
an annotated attribute of a dataclass or a parameter of an ``__init__`` (or of a function), its own
or its base's: bases are followed where their source is in reach, and so is ``**settings`` that is
handed on to ``super().__init__`` or to another class.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union

from equiscape import hints
from equiscape.errors import ConfigError
from equiscape.source import (
    UNKNOWN,
    Module,
    body_of,
    find,
    literal,
    no_module,
    open_module,
    read_module,
)

EMPTY = ("Module", "Optimizer", "object", "ABC", "Protocol")  # bases without settings


@dataclass(frozen=True)
class Setting:
    """One setting: its type, and its default where the source spells one."""

    name: str
    hint: Any = Any
    required: bool = True
    default: Any = UNKNOWN


@dataclass(frozen=True)
class Declaration:
    """What a class or a function says about its settings.

    Attributes:
        target: ``"module:name"``.
        settings: by name, a base's before its own.
        open: it takes further settings that cannot be read from the source.
        attributes: literal class attributes such as ``CONSTRAINTS``, a base's included.
        members: names of methods, class attributes and attributes set on ``self``.
        forward: positional parameters that its ``forward`` needs, ``self`` left out; None if it
            has no ``forward``.
        inputs: how many positional parameters ``forward`` needs and takes.
        known: whether the sources of all bases could be read.
        files: the sources that were read, the class's own first.
    """

    target: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    open: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    forward: tuple[str, ...] | None = None
    inputs: tuple[int, float] | None = None
    known: bool = True
    files: tuple[Path, ...] = ()

    @property
    def constraints(self) -> tuple[tuple[str, str], ...]:
        """``(expression, sentence)`` pairs over several settings."""
        return tuple(self.attributes.get("CONSTRAINTS", ()))

    @property
    def execution(self) -> tuple[str, ...]:
        """Settings that change speed or memory only."""
        return tuple(self.attributes.get("EXECUTION", ()))

    def defaults(self) -> dict[str, Any]:
        """The defaults that the source spells."""
        return {
            name: setting.default
            for name, setting in self.settings.items()
            if not setting.required and setting.default is not UNKNOWN
        }


def declared(target: str, plugins: Iterable[str | Path] = ()) -> Declaration:
    """The declaration of ``"package.module:Name"``.

    Args:
        target: of this package, of a module in one of the ``plugins`` folders, or installed.
        plugins: folders that modules may lie in.

    Raises:
        ConfigError: there is no such module, or nothing of that name in it.
    """
    module_name, _, name = target.partition(":")
    module = open_module(module_name, tuple(str(folder) for folder in plugins))
    if module is None:
        raise no_module(target)
    found = find(module, name, far=True)
    if found is None:
        known = ", ".join(n for n, node in module.names.items() if isinstance(node, ast.ClassDef))
        raise ConfigError(
            f"{target}: {module.path} has no {name!r}; its classes are: {known or 'none'}."
        )
    return _of(*found, target)


def nested(target: str, name: str, plugins: Iterable[str | Path] = ()) -> Declaration | None:
    """The declaration of a class ``name`` of a module, or within a class; None if it has none."""
    owner, body = body_of(target, plugins)
    for line in body:
        if isinstance(line, ast.ClassDef) and line.name == name:
            return _of(owner, line, f"{target}.{name}")
    found = find(owner, name) if ":" not in target else None
    return _of(*found, f"{target}.{name}") if found else None


def declared_in(module: str, path: Path, qualname: str) -> Declaration:
    """As :func:`declared`, for a class or function whose file is known.

    Args:
        module: its dotted name.
        path: its file.
        qualname: its ``__qualname__``, which may lie within another class or function.

    Raises:
        ConfigError: the file holds nothing of that name.
    """
    opened = read_module(module, path)
    node: Any = opened.tree
    for name in qualname.split("."):
        if name != "<locals>":
            inside = (n for n in ast.walk(node) if getattr(n, "name", None) == name)
            node = next((n for n in inside if isinstance(n, ast.ClassDef | ast.FunctionDef)), None)
        if node is None:
            raise ConfigError(f"{path} has no {qualname!r}; reload the module.")
    return _of(opened, node, f"{module}:{qualname}")


@cache
def _of(module: Module, node: ast.AST, target: str) -> Declaration:
    if isinstance(node, ast.FunctionDef):
        read = _parameters(module, node, skip=0)
        return replace(read, target=target, files=(module.path,))
    if isinstance(node, ast.ClassDef):
        return replace(_of_class(module, node), target=target)
    raise ConfigError(f"{target} is neither a class nor a function; name one of these.")


def _of_class(module: Module, node: ast.ClassDef) -> Declaration:
    bases, known = [], True
    for name in map(ast.unparse, node.bases):
        found = find(module, name, far=True)
        if found and isinstance(found[1], ast.ClassDef):
            bases.append(_of_class(found[0], found[1]))
        elif name.rpartition(".")[2] not in EMPTY:
            known = False
    base = bases[0] if bases else Declaration("")
    attributes, members, forward, inputs = _body(module, node)
    inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    opened, files = base.open or not known, base.files
    if inits:
        own = _parameters(module, inits[-1], skip=1, base=base)
        settings, opened, files = own.settings, own.open, own.files or files
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        settings = {**base.settings, **_fields(module, node)}
    else:
        settings = base.settings
    return Declaration(
        "",
        settings,
        opened,
        {**base.attributes, **attributes}
        | {"CONSTRAINTS": (*base.constraints, *attributes.get("CONSTRAINTS", ()))},
        frozenset().union(members, *(b.members for b in bases)),
        forward if inputs is not None else base.forward,
        inputs if inputs is not None else base.inputs,
        known and all(b.known for b in bases),
        tuple(dict.fromkeys([module.path, *files, *(f for b in bases for f in b.files)])),
    )


def _fields(module: Module, node: ast.ClassDef) -> dict[str, Setting]:
    settings = {}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            if "ClassVar" in ast.unparse(line.annotation):
                continue
            name, hint = line.target.id, _hint(module, line.annotation)
            required, default = line.value is None, UNKNOWN
            if isinstance(line.value, ast.Call) and ast.unparse(line.value.func).endswith("field"):
                required, default = _from_field(module, line.value)
            elif line.value is not None:
                default = literal(module, line.value)
            settings[name] = Setting(name, hint, required, default)
    return settings


def _from_field(module: Module, call: ast.Call) -> tuple[bool, Any]:
    """Whether a ``field(...)`` must be given, and its default."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "default" in given:
        return False, literal(module, given["default"])
    if "default_factory" not in given:
        return True, UNKNOWN
    factory = given["default_factory"]
    if isinstance(factory, ast.Lambda):
        return False, literal(module, factory.body)
    return False, {"list": [], "dict": {}, "tuple": ()}.get(ast.unparse(factory), UNKNOWN)


def _parameters(
    module: Module, node: ast.FunctionDef, skip: int, base: Declaration | None = None
) -> Declaration:
    """Settings of a function, of which the first ``skip`` parameters (self) are none."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)][skip:]
    settings = {}
    for argument, default in pairs:
        hint = Any if argument.annotation is None else _hint(module, argument.annotation)
        value = UNKNOWN if default is None else literal(module, default)
        settings[argument.arg] = Setting(argument.arg, hint, default is None, value)
    if arguments.kwarg is None:
        return Declaration("", settings)
    onward = _handed_on(module, node, arguments.kwarg.arg, base)
    if onward is None:
        return Declaration("", settings, open=True)
    return replace(onward, settings={**onward.settings, **settings})


def _handed_on(
    module: Module, node: ast.FunctionDef, keywords: str, base: Declaration | None
) -> Declaration | None:
    """The settings that ``**keywords`` of ``node`` may hold: those of what it is handed on to."""
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        stars = [k for k in call.keywords if k.arg is None and ast.unparse(k.value) == keywords]
        if not stars:
            continue
        function = ast.unparse(call.func)
        if function == "super().__init__":
            onward = base if base and base.target == "" and base.files else None
        else:
            found = find(module, function.removesuffix(".__init__"), far=True)
            onward = None
            if found and isinstance(found[1], ast.ClassDef):
                onward = _of_class(found[0], found[1])
            elif found and isinstance(found[1], ast.FunctionDef):
                onward = replace(_parameters(found[0], found[1], skip=0), files=(found[0].path,))
        if onward is None:
            return None
        given = {k.arg for k in call.keywords}
        for argument, name in zip(call.args, onward.settings):
            given |= {name} if not isinstance(argument, ast.Starred) else set()
        left = {name: s for name, s in onward.settings.items() if name not in given}
        return replace(onward, settings=left)
    return None


def _body(
    module: Module, node: ast.ClassDef
) -> tuple[dict[str, Any], set[str], tuple[str, ...] | None, tuple[int, float] | None]:
    """Literal attributes, names of members, and what ``forward`` of a class needs and takes."""
    attributes: dict[str, Any] = {}
    members: set[str] = set()
    forward, inputs = None, None
    for line in node.body:
        if isinstance(line, ast.FunctionDef):
            members.add(line.name)
            for inner in ast.walk(line):
                if isinstance(inner, ast.Assign):
                    targets = [ast.unparse(target) for target in inner.targets]
                    members |= {t.removeprefix("self.") for t in targets if t.startswith("self.")}
            if line.name == "forward":
                positional = [*line.args.posonlyargs, *line.args.args]
                needed = positional[1 : len(positional) - len(line.args.defaults)]
                forward = tuple(argument.arg for argument in needed)
                most = float("inf") if line.args.vararg else len(positional) - 1
                inputs = (len(forward), most)
        elif isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
            assigned = line.targets if isinstance(line, ast.Assign) else [line.target]
            for target in assigned:
                if isinstance(target, ast.Name):
                    members.add(target.id)
                    if (value := literal(module, line.value)) is not UNKNOWN:
                        attributes[target.id] = value
    return attributes, members, forward, inputs


def _hint(module: Module, node: ast.expr) -> Any:
    """The type that an annotation means; Any where it is not one of :mod:`equiscape.hints`."""
    try:
        return _evaluate(module, node)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Any


def _evaluate(module: Module, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # an annotation in quotes
            return _evaluate(module, ast.parse(node.value, mode="eval").body)
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        found = find(module, ast.unparse(node))
        if found and isinstance(found[1], ast.ClassDef) and found[0].name != "equiscape.hints":
            return _nested_hint(found[0], found[1])
        if found and isinstance(found[1], ast.Assign):
            owner, assigned = found[0], found[1]
            if owner.name != "equiscape.hints":
                return _evaluate(owner, assigned.value)
            return hints.NAMES[ast.unparse(assigned.targets[0])]
        return hints.NAMES[ast.unparse(node).rpartition(".")[2]]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[_evaluate(module, node.left), _evaluate(module, node.right)]  # noqa: UP007
    if isinstance(node, ast.Call):
        return _evaluate(module, node.func)(*(literal(module, a) for a in node.args))
    if isinstance(node, ast.Subscript):
        return _subscript(module, node)
    raise KeyError(ast.unparse(node))


def _nested_hint(module: Module, node: ast.ClassDef) -> Any:
    """A dataclass as the type of a setting: a map of its settings."""
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return Any
    declaration = _of(module, node, f"{module.name}:{node.name}")

    def check(value: Any, key: str) -> dict[str, Any]:
        from equiscape import settings

        return settings.checked(value, declaration, key)

    return Annotated[dict, hints.Nested(module.name, node.name, check)]


def _subscript(module: Module, node: ast.Subscript) -> Any:
    name = ast.unparse(node.value).rpartition(".")[2]
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return hints.Literal[tuple(literal(module, item) for item in items)]
    inner = tuple(... if ast.unparse(i) == "..." else _evaluate(module, i) for i in items)
    if name == "Optional":
        return Union[inner[0], None]  # noqa: UP007
    if name == "Annotated":
        return Annotated[inner]
    generic = _evaluate(module, node.value)
    return generic[inner if len(inner) > 1 else inner[0]]
