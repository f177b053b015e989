"""No JSON file is read without its schema, and one that does not fit is named with a remedy."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from fake_results import CLOUDS, product, write_representative, write_study
from jsonschema import Draft202012Validator

from equiscape import io
from equiscape.analyses import ANALYSES
from equiscape.errors import DataError
from equiscape.report import curvature, load
from equiscape.report.manifest import Manifest
from equiscape.report.pages import connectivity, dynamics, selection
from equiscape.results import Study

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow/scripts"
SCHEMAS = {path.name.removesuffix(".schema.yaml"): path for path in io.SCHEMAS.iterdir()}
NO_FILES = {
    "equiscape/io.py",  # the reader itself
    "equiscape/files/hdf5.py",  # lines of a pipe between two processes of this program
    "equiscape/files/hdf5_worker.py",
    "equiscape/models/names.py",  # likewise
    "equiscape/configuration/parameters.py",  # the other end of that pipe, checked by misfit()
    "equiscape/data/peptides.py",  # one column of a table, checked right below
}
READERS = {"read_json": 1, "read_product": 2}
"""Function -> position of its schema."""


def sources():
    """Path under the scripts and syntax tree of every Python file there; of rules, their calls."""
    for path in sorted(SCRIPTS.rglob("*.py")):
        yield path.relative_to(SCRIPTS).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
    for path in [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"\bread_json\((?:[^()]|\([^()]*\))*\)|\bjson\.loads?\(", text):
            yield path.name, ast.parse(call if call.endswith(")") else f"{call})")
    for path in sorted((ROOT / "workflow/notebooks").glob("*.py")):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def schema_of(call: ast.Call, position: int) -> str | None:
    """What a reader is given as its schema, or the name that a caller's caller gives."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "schema"]
    given += call.args[position : position + 1]
    if given and isinstance(given[0], ast.Constant):
        return str(given[0].value)
    return "a caller's" if given and ast.unparse(given[0]) == "schema" else None


def test_no_json_is_read_without_its_schema():
    calls = 0
    for where, tree in sources():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in ("load", "loads") and ast.unparse(call.func).startswith("json."):
                assert where in NO_FILES, f"{where}:{call.lineno} parses JSON on its own"
            if ast.unparse(call.func) in ("pd.read_json", "pandas.read_json"):
                pytest.fail(f"{where}:{call.lineno} reads JSON as a table")
            if name in READERS:
                calls += 1
                schema = schema_of(call, READERS[name])
                assert schema in {*SCHEMAS, "a caller's"}, f"{where}:{call.lineno}: {schema!r}"
    assert calls > 20


def test_every_schema_is_one_and_is_used():
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in (SCRIPTS, ROOT / "workflow/rules")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".smk")
    )
    for name, path in SCHEMAS.items():
        schema = yaml.safe_load(path.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        assert "title" in schema, name
        assert f'"{name}"' in text or f"{name}.schema.yaml" in text, f"{name} is used nowhere"


def test_the_rule_that_a_schema_names_is_there():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = {*re.findall(r"^rule (\w+):", text, re.MULTILINE), *ANALYSES}
    for name, path in SCHEMAS.items():
        rule = yaml.safe_load(path.read_text(encoding="utf-8")).get("x-rule")
        assert rule is None or set(rule.split()) <= rules, name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"lr": "1e-3"}', r"choice\.schema\.yaml \(the file: 'wd' is a required property\)"),
        (b'{"lr": 0.001, "wd": "0"}', r"\(lr: 0\.001 is not of type 'string', 'null'\)"),
        (b'{"lr": "1", "wd": "0", "more": 1}', r"'more' was unexpected"),
        (b"[]", r"\(the file: \[\] is not of type 'object'\)"),
        (b"", "is not valid JSON"),
        (b'{"lr": "1e-3", "wd": ', "is not valid JSON"),
        (b'{"lr": NaN, "wd": "0"}', "NaN is no number of JSON"),
        (b'{"lr": 1e999, "wd": "0"}', "1e999 is no number of JSON"),
        (b'\xff\xfe{"lr"', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"foreign": "' + b"x" * 10**6 + b'"}', "was unexpected"),
    ],
)
def test_a_damaged_or_foreign_file_ends_in_one_sentence(tmp_path, content, reason):
    path = tmp_path / "egnn_adam.choice.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as fault:
        io.read_json(path, "choice")
    message = str(fault.value)
    assert message.startswith(str(path))
    assert message.endswith("make it again with --forcerun select only_setting.")
    assert len(message) < len(str(path)) + 400
    assert "\n" not in message
    assert "delete" not in message


def test_a_byte_order_mark_is_no_damage(tmp_path):
    path = tmp_path / "choice.json"
    path.write_bytes(b'\xef\xbb\xbf{"lr": null, "wd": null}\r\n')
    assert io.read_json(path, "choice") == {"lr": None, "wd": None}


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)\.$"):
        io.read_json(tmp_path, "choice")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of one task with a representative."""
    made = write_study(tmp_path_factory.mktemp("study"), {"egnn": CLOUDS["egnn"]}, seeds=2)
    for optimizer in made.optimizers:
        write_representative(made, "egnn", optimizer, 1)
    return made


def beside(analysis):
    """Where the envelope of a result is."""
    return lambda made: product(made, analysis, "egnn", "adam").with_suffix(".json")


READS = {
    "metrics": (lambda made: made.final("egnn", "adam", 0), load.finals),
    "selection": (lambda made: made.selection("egnn", "adam"), selection.load),
    "hessian": (beside("hessian"), curvature.load),
    "dynamics": (beside("dynamics"), dynamics.costs),
    "connectivity": (beside("connectivity"), connectivity.heights),
    "representative": (
        lambda made: made.representative("egnn", "adam"),
        lambda made: Study(made).representative("egnn", "adam"),
    ),
    "report": (
        lambda made: made.results / "report.json",
        lambda made: Manifest.read(made.results / "report.json"),
    ),
}


def refusal(read) -> str | None:
    """The sentence of a refusal; None where all was well."""
    try:
        read()
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", READS)
def test_every_entry_that_is_missing_or_of_another_type_is_named(made, name):
    """Each key of each product in turn: without it, and with a value of another type."""
    place, read = READS[name]
    path = place(made)
    healthy = path.read_bytes()
    data = json.loads(healthy)
    required = set(yaml.safe_load(SCHEMAS[name].read_text()).get("required", []))
    try:
        for key in data:
            for change in ({k: v for k, v in data.items() if k != key}, {**data, key: [{}, 3]}):
                path.write_text(json.dumps(change))
                if key in change and change[key] == data[key]:
                    continue
                fault = refusal(lambda: read(made))
                assert fault is not None or key not in required, f"{key} is missed by nobody"
                assert fault is None or path.name in fault, key
        path.write_text("[1, 2]")
        with pytest.raises(DataError, match=re.escape(path.name)):
            read(made)
    finally:
        path.write_bytes(healthy)
