"""The library's floors: an import only goes down, and no module holds state that changes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "equiscape"
PACKAGE = "equiscape"

# the higher the number, the more a module may import; within a floor everything may be imported
FLOORS = {
    **{path.stem: 0 for path in LIBRARY.glob("*.py")},  # the foundation, but for what follows
    **dict.fromkeys(["files", "groups"], 0),
    "ops": 1,
    **dict.fromkeys(["models", "optim", "data"], 2),
    **dict.fromkeys(["checkpoint", "task"], 3),
    **dict.fromkeys(["landscape", "spectra"], 4),
    "training": 5,
    **dict.fromkeys(["analyses", "report"], 6),
    **dict.fromkeys(["results", "equiscape"], 7),  # what a person opens
}
CONFIGURATION = {
    "study",
    "configuration",
    "check",
    "selection",
    "__init__",
}  # beside the floors: they read registries
BELOW_THE_HUB = {"models", "ops"}  # task.py alone imports them from above
# whose __init__ every process may read
REGISTRIES = {"models", "optim", "optim.schedules", "data", "training", "analyses"}


def modules():
    """Dotted name under the package and syntax tree of every module of the library."""
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name or PACKAGE, ast.parse(path.read_text())


def imports(tree):
    """Dotted names under the package of what a module imports, those within functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == PACKAGE:
                yield from (alias.name for alias in node.names)
            elif node.module.startswith(f"{PACKAGE}."):
                yield node.module.removeprefix(f"{PACKAGE}.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{PACKAGE}."):
                    yield alias.name.removeprefix(f"{PACKAGE}.")


def faults(name, tree):
    """The arrows that run up from this module."""
    top = name.partition(".")[0]
    for target in imports(tree):
        wanted = target.partition(".")[0]
        if top in CONFIGURATION:
            if FLOORS.get(wanted, 0) > 0 and target not in REGISTRIES:
                yield f"{name} -> {target}"
        elif wanted not in FLOORS or wanted in CONFIGURATION:
            yield f"{name} -> {target} (give {target} a floor)"
        elif FLOORS[wanted] > FLOORS[top] or (
            FLOORS[top] > FLOORS["task"] and wanted in BELOW_THE_HUB
        ):
            yield f"{name} -> {target}"


def test_an_import_only_goes_down():
    found = list(modules())
    assert {"task", "ops.neighbors", "models.egnn"} <= {name for name, _ in found}
    assert not [fault for name, tree in found for fault in faults(name, tree)]


def test_report_reads_products_only():
    above = {"task", "training", "landscape", "spectra", "models", "optim", "data", "ops"}
    for name, tree in modules():
        if name.startswith("report"):
            targets = {t.partition(".")[0] for t in imports(tree)}
            assert not targets & above, name
            assert not any(
                isinstance(node, ast.Import) and any(a.name == "torch" for a in node.names)
                for node in ast.walk(tree)
            ), name


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("ops.x", "from equiscape.models import egnn", "ops.x -> models"),
        ("training.x", "from equiscape.ops.neighbors import knn", "training.x -> ops.neighbors"),
        ("landscape.x", "def f():\n    import equiscape.models", "landscape.x -> models"),
        ("errors", "from equiscape import task", "errors -> task"),
        ("study", "from equiscape.models.egnn import EGNN", "study -> models.egnn"),
        ("models.x", "from equiscape import study", "models.x -> study (give study a floor)"),
    ],
)
def test_an_arrow_that_runs_up_is_found(name, source, fault):
    assert list(faults(name, ast.parse(source))) == [fault]


MUTATORS = {
    *("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove"),
    *("discard", "clear", "sort", "reverse", "appendleft", "popleft"),
}


def changed_names(tree):
    """Names of the module level that the module's functions rebind or change in place."""
    found = {n for node in ast.walk(tree) if isinstance(node, ast.Global) for n in node.names}
    level = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for function in (node for node in ast.walk(tree) if isinstance(node, functions)):
        inside = list(ast.walk(function))
        local = {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)} | {
            n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        for node in inside:
            changed = None
            if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(
                node.ctx, ast.Load
            ):
                changed = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                changed = node.func.value if node.func.attr in MUTATORS else None
            if isinstance(changed, ast.Name) and changed.id in level - local:
                found.add(changed.id)
    return found


def test_no_module_holds_state_that_changes():
    assert not {name: names for name, tree in modules() if (names := changed_names(tree))}


@pytest.mark.parametrize(
    "source",
    [
        "state = False\ndef f():\n    global state\n    state = True",
        "_answers = {}\ndef f(x):\n    _answers[id(x)] = x",
        "seen: list = []\ndef f(x):\n    seen.append(x)",
        "class C:\n    def f(self):\n        del KEPT[0]\nKEPT = [1]",
    ],
)
def test_state_is_found(source):
    assert len(changed_names(ast.parse(source))) == 1


def test_jobs_that_take_seconds_import_no_package_that_takes_as_long():
    """Each is half a second of the processor, in each job of a study."""
    analyses = ("hessian", "slice", "rank", "robustness", "symmetry", "connectivity", "sharpness")
    modules = ["equiscape.training.cell", *(f"equiscape.analyses.{a}" for a in analyses)]
    slow = {"pandas", "scipy.stats", "matplotlib", "sklearn", "torch_geometric", "torch._dynamo"}
    program = f"import sys, {', '.join(modules)}\nprint(*({slow!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
