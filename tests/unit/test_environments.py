"""The conda environments, checked without conda: form, versions, and every import provided.

What each rule imports is found from the code: the imports of its script, of every equiscape module
these reach, and of the modules that a registry names in a string.
"""

import ast
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import packages_distributions, requires
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


def named_modules(code: ast.AST) -> set[str]:
    """Dotted names of the modules that some code imports, lazily or not, or names in a registry."""
    found: set[str] = set()
    todo: list[ast.AST] = [code]
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


def units(tree: ast.AST) -> dict[str | None, list[ast.AST]]:
    """A module's functions and classes by name; under None, what runs when it is imported."""
    found: dict[str | None, list[ast.AST]] = {None: []}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
            found[None] += node.decorator_list
        else:
            found[None].append(node)
    return found


def mentions(node: ast.AST) -> set[str]:
    """Every name that a piece of code uses, imports or looks up as an attribute."""
    names = set()
    for at in ast.walk(node):
        names |= {getattr(at, key) for key in ("id", "attr") if hasattr(at, key)}
        if isinstance(at, ast.ImportFrom):
            names |= {alias.name for alias in at.names}
        elif isinstance(at, ast.Constant) and isinstance(at.value, str) and ":" in at.value:
            names.add(at.value.rpartition(":")[2])  # an entry of a registry
    return names


@lru_cache
def third_party(path: Path) -> frozenset[str]:
    """Top-level names of the installed packages that a file needs.

    An import within a function counts where the function's name is mentioned in code that counts:
    what only writes JSON needs no torch because its module can also read checkpoints.
    """
    waiting: dict[str, list[ast.AST]] = {}
    mentioned: set[str] = set()
    seen, found = set(), set()
    todo: list[ast.AST] = []

    def reach(file: Path, whole: bool = False) -> None:
        if file in seen:
            return
        seen.add(file)
        for name, nodes in units(ast.parse(file.read_text())).items():
            if name is None or whole or name in mentioned:
                todo.extend(nodes)
            else:
                waiting.setdefault(name, []).extend(nodes)

    reach(path, whole=True)
    while todo:
        node = todo.pop()
        for name in mentions(node) - mentioned:
            mentioned.add(name)
            todo += waiting.pop(name, [])
        for name in named_modules(node):
            top = name.split(".")[0]
            if top == "equiscape":
                parts = name.split(".")
                for i in range(1, len(parts) + 1):
                    if file := module_file(".".join(parts[:i])):
                        reach(file)
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
            if environment and "notebook=" in block:  # the loop over the report's pages
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
        assert not {
            name
            for name in named_modules(ast.parse(file.read_text()))
            if name.split(".")[0] == "snakemake"
        }, file


def test_every_snakemake_process_imports_neither_torch_nor_numpy():
    heavy = {"torch", "numpy", "pandas", "h5py", "scipy"}
    for module in ("study", "report/manifest", "report/page", "report/pages/__init__"):
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


def test_channels_are_conda_forge_and_bioconda_for_snakemake_alone():
    for path in ENVIRONMENTS:
        channels = yaml.safe_load(path.read_text())["channels"]
        bioconda = ["bioconda"] if path.stem == "snakemake" else []
        assert channels == ["conda-forge", *bioconda, "nodefaults"], path.name


def test_every_import_of_the_rule_files_comes_with_snakemake():
    provided = {conda_name(re.match(r"[\w.-]+", spec)[0]) for spec in requires("snakemake")}
    provided |= set(dependencies(ROOT / "envs/snakemake.yaml"))
    named = {"equiscape.study", "equiscape.report.manifest", "equiscape.report.pages"}
    for file in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        named |= set(re.findall(r"^(?:from|import) ([\w.]+)", file.read_text(), re.M))
    found, seen = set(), set()
    while named:  # eager imports only: nothing else is imported by a Snakemake process
        name = named.pop()
        seen.add(name)
        top = name.split(".")[0]
        if top == "equiscape" and (path := module_file(name)):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    modules = [a.name for a in node.names]
                    if isinstance(node, ast.ImportFrom):
                        modules = [node.module, *(f"{node.module}.{n}" for n in modules)]
                    named |= {m for m in modules if m not in seen}
        elif top not in {*sys.stdlib_module_names, "equiscape", "snakemake"}:
            found.add(top)
    missing = {
        name
        for name in found
        if not {conda_name(d) for d in DISTRIBUTIONS.get(name, [name])} & provided
    }
    assert not missing, f"envs/snakemake.yaml lacks {missing}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "envs").glob("*.pin.txt")) or [None], ids=lambda p: getattr(p, "name", p)
)
def test_frozen_environments_are_those_of_the_yaml_files(path):
    if path is None:
        pytest.skip("nothing is frozen; envs/freeze.sh does it where conda and a network are")
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "@EXPLICIT"
    package = re.compile(
        r"https://\S+/(?:linux-64|noarch)/(.+)-([^-]+)-([^-]+)\.(?:conda|tar\.bz2)#\w+"
    )
    frozen = {match[1]: match for match in map(package.fullmatch, lines[1:])}
    environment = path.with_name(path.name.split(".")[0] + ".yaml")
    for name, version in dependencies(environment).items():
        assert frozen[name][2].startswith(version), name
    if "pytorch" in frozen:
        assert "cuda" in frozen["pytorch"][3]


FAKE_CONDA = """#!/bin/sh
echo "$CONDA_SUBDIR $CONDA_OVERRIDE_CUDA $*" >> "$CALLS"
if [ "$1 $2" = "env export" ] || [ "$1" = list ]; then
    printf '@EXPLICIT\\nhttps://x/linux-64/pytorch-2.13.0-%s_0.conda#00\\n' "$BUILD"
fi
"""


def freeze(
    folder: Path, *names: str, build: str = "cuda129", tool: str = "micromamba", **variables
):
    """Run a copy of envs/freeze.sh with a stand-in for ``tool`` that notes how it is called."""
    environments = folder / "envs"
    shutil.copytree(ROOT / "envs", environments, ignore=shutil.ignore_patterns("*.pin.txt"))
    (folder / "bin").mkdir()
    if tool:
        (folder / "bin" / tool).write_text(FAKE_CONDA)
        (folder / "bin" / tool).chmod(0o755)
    variables |= {"CALLS": str(folder / "calls"), "BUILD": build}
    run = subprocess.run(
        ["bash", str(environments / "freeze.sh"), *names],
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return run, calls, sorted(file.name for file in environments.glob("*.pin.txt"))


@pytest.mark.parametrize("tool", ["micromamba", "mamba", "conda"])
def test_freezing_solves_every_environment_for_linux_and_a_stated_cuda(tmp_path, tool):
    run, calls, frozen = freeze(tmp_path, tool=tool)
    assert run.returncode == 0, run.stderr
    assert frozen == [f"{path.stem}.linux-64.pin.txt" for path in ENVIRONMENTS]
    assert all(call.startswith("linux-64 12.9 ") for call in calls)
    run, calls, frozen = freeze(tmp_path / "one", "torch", tool=tool, CUDA="13.0")
    assert (run.returncode, frozen) == (0, ["torch.linux-64.pin.txt"])
    assert all(call.startswith("linux-64 13.0 ") for call in calls)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tool": ""}, "micromamba, mamba and conda are missing; install one of them"),
        ({"build": "cpu"}, "no CUDA build of PyTorch for CUDA 12.9; set CUDA to a version"),
        ({"names": ["tourch"]}, "envs/tourch.yaml does not exist; name one of the environments"),
    ],
)
def test_freezing_that_fails_says_why_and_leaves_nothing(tmp_path, arguments, sentence):
    names = arguments.pop("names", ["torch"])
    run, _, frozen = freeze(tmp_path, *names, **arguments)
    assert run.returncode == 1
    assert sentence in run.stderr
    assert not frozen
