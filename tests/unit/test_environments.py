"""The conda environments, checked without conda: form, versions, and every import provided.

What each rule imports is found from the code: the imports of its script, of every equiscape module
these reach, and of the modules that a registry names in a string.
"""

import ast
import re
import sys
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow/scripts"
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
CONDA_NAMES = {"torch": "pytorch", "torch-geometric": "pytorch_geometric"}
DISTRIBUTIONS = packages_distributions()


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {conda_name(name): version for name, version in pins}


def conda_name(distribution: str) -> str:
    name = distribution.lower()
    return CONDA_NAMES.get(name, name)


def dependencies(path: Path) -> dict[str, str]:
    specs = yaml.safe_load(path.read_text())["dependencies"]
    return dict(spec.split("=", 1) for spec in specs)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda p: p.stem)
def test_every_version_is_exact_and_the_lock_s_own(path):
    environment = yaml.safe_load(path.read_text())
    assert set(environment) == {"channels", "dependencies"}
    assert environment["channels"][-1] == "nodefaults"
    pins = lock()
    for name, version in dependencies(path).items():
        if name != "python":
            assert version.split("=")[0] == pins[name], name


def test_the_lock_holds_what_is_used_directly():
    direct = re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "requirements.in").read_text(), re.M)
    pins = lock()
    assert {conda_name(n): v for n, v in direct}.items() <= pins.items()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def named_modules(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, lazily or not, or names in a registry."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if is_type_checking(node):
            continue
        todo.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"(equiscape(?:\.\w+)+)(?::\w+)?", node.value)
            found |= {match[1]} if match else set()
    return found


def module_file(name: str) -> Path | None:
    base = SCRIPTS / name.replace(".", "/")
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@lru_cache
def third_party(path: Path) -> frozenset[str]:
    """Top-level names of the installed packages that a file reaches."""
    seen, todo, found = set(), [path], set()
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        for name in named_modules(at):
            top = name.split(".")[0]
            if top == "equiscape":
                parts = name.split(".")
                names = (".".join(parts[:i]) for i in range(1, len(parts) + 1))
                todo += [file for file in map(module_file, names) if file]
            elif top not in sys.stdlib_module_names:
                found.add(top)
    return frozenset(found)


def rules() -> list[tuple[str, Path, Path]]:
    """(rule, environment, script or notebook) of every rule that runs code."""
    found = []
    for smk in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for block in re.split(r"^(?=[ \t]*rule\b)", smk.read_text(), flags=re.M)[1:]:
            environment = re.search(r"conda:\s+\"\.\./\.\./(envs/\w+\.yaml)\"", block)
            script = re.search(r"script:\s+\"\.\./(scripts/\w+\.py)\"", block)
            name = re.match(r"\s*rule\s*(\w*)", block)[1]
            if environment and script:
                found.append((name, ROOT / environment[1], ROOT / "workflow" / script[1]))
            elif environment:  # the notebooks' rule: a shell pipe over every notebook
                for notebook in sorted((ROOT / "workflow/notebooks").glob("*.py")):
                    found.append((name or notebook.stem, ROOT / environment[1], notebook))
    return found


@pytest.mark.parametrize(
    ("rule", "environment", "file"), rules(), ids=lambda v: getattr(v, "stem", v)
)
def test_every_import_of_a_rule_is_provided_by_its_environment(rule, environment, file):
    provided = set(dependencies(environment))
    missing = {
        name
        for name in third_party(file)
        if name != "snakemake"
        and not {conda_name(d) for d in DISTRIBUTIONS.get(name, [name])} & provided
    }
    assert not missing, f"{environment.name} lacks {missing} for rule {rule} ({file.name})"


def test_every_script_belongs_to_a_rule():
    used = {file for _, _, file in rules()}
    assert {*SCRIPTS.glob("*.py"), *(ROOT / "workflow/notebooks").glob("*.py")} <= used


def test_the_library_never_imports_snakemake():
    for file in (SCRIPTS / "equiscape").rglob("*.py"):
        assert not {n for n in named_modules(file) if n.split(".")[0] == "snakemake"}, file


def test_every_snakemake_process_imports_neither_torch_nor_numpy():
    heavy = {"torch", "numpy", "pandas", "h5py", "scipy"}
    for module in ("study", "report/manifest"):
        eager: set[Path] = set()
        todo = [SCRIPTS / f"equiscape/{module}.py"]
        while todo:
            path = todo.pop()
            if path in eager:
                continue
            eager.add(path)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [a.name for a in node.names]
                    if isinstance(node, ast.ImportFrom):
                        names = [node.module, *(f"{node.module}.{n}" for n in names)]
                    assert not {n.split(".")[0] for n in names} & heavy, path
                    todo += [f for f in map(module_file, names) if f and "equiscape" in str(f)]
