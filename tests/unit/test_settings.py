"""Settings are read from the source as Python reads them, and checked in one sentence."""

import inspect
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from equiscape.errors import ConfigError
from equiscape.models import ARCHITECTURES
from equiscape.optim import OPTIMIZERS
from equiscape.registry import lookup
from equiscape.settings import (
    Above,
    AtLeast,
    Distinct,
    Fraction,
    Odd,
    Positive,
    PositiveInt,
    Probability,
    Seed,
    check,
    declared,
    evaluate,
    read,
)

REGISTERED = {**ARCHITECTURES, **OPTIMIZERS}


@dataclass(frozen=True)
class Case:
    """Every kind of type."""

    whole: int
    count: PositiveInt = 3
    number: float = 0.5
    rate: Positive = 1e-3
    share: Fraction = 0.5
    chance: Probability = 0.0
    seed: Seed = 0
    flag: bool = False
    text: str = "a"
    choice: Literal["mean", "sum"] = "mean"
    maybe: PositiveInt | None = None
    resolution: Annotated[int, AtLeast(3), Odd()] = 11
    pair: tuple[Probability, Probability] = (0.9, 0.99)
    widths: list[PositiveInt] = field(default_factory=lambda: [8])
    names: Annotated[list[str], AtLeast(1), Distinct()] | None = None
    above: Annotated[float, Above(-1)] = 0.0
    anything: Any = None
    CONSTRAINTS = (
        ("count % whole == 0", "whole must divide count"),
        ("count < points", "count must be below {points}, the points"),
    )
    EXECUTION = ("flag",)


CASE = "test_settings:Case"
HERE = [Path(__file__).parent]


def checked(**settings):
    return check({"whole": 1, **settings}, CASE, "tasks.x.model", plugins=HERE)


@pytest.mark.parametrize("name", REGISTERED)
def test_the_source_is_read_as_python_reads_it(name):
    parameters = inspect.signature(lookup(REGISTERED, name, "name")).parameters
    settings = declared(REGISTERED[name]).settings
    assert list(settings) == list(parameters)
    for key, parameter in parameters.items():
        assert settings[key].required == (parameter.default is inspect.Parameter.empty)
        if not settings[key].required:
            assert settings[key].default == parameter.default


def test_declarations_are_read_without_importing_torch():
    code = (
        "import sys; from equiscape.settings import declared\n"
        f"for target in {list(REGISTERED.values())}: declared(target)\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    )
    folder = Path(__file__).resolve().parents[2] / "workflow/scripts"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(folder)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coutn": 3}, r"^tasks\.x\.model: 'coutn' is unknown; did you mean 'count'\.$"),
        ({"count": 0}, r"^tasks\.x\.model\.count: 0 must be a whole number, at least 1\.$"),
        ({"count": "64"}, r"count: '64' must be a whole number.*; write 64 without quotes\."),
        ({"count": 8.0}, r"count: 8\.0 must be a whole number, at least 1; write 8\."),
        ({"count": 1.5}, r"count: 1\.5 must be a whole number"),
        ({"count": True}, r"count: true must be a whole number"),
        ({"count": None}, r"count: null must be a whole number"),
        ({"number": math.nan}, r"number: NaN must be a finite number"),
        ({"number": math.inf}, r"number: infinity must be"),
        ({"number": "nan"}, r"number: 'nan' must be"),
        ({"number": "1_0"}, r"number: '1_0' must be"),
        ({"number": [1.0]}, r"number: \[1\.0\] must be"),
        ({"number": False}, r"number: false must be"),
        ({"rate": 0}, r"rate: 0 must be a finite number, greater than 0\."),
        ({"share": 1.5}, r"share: 1\.5 must be a finite number, at least 0 and at most 1\."),
        ({"chance": 1}, r"chance: 1 must be .*less than 1"),
        ({"seed": 2**63}, r"seed: 9223372036854775808 must be"),
        ({"flag": "yes"}, r"flag: 'yes' must be true or false"),
        ({"flag": 1}, r"flag: 1 must be true or false"),
        ({"text": 3}, r"text: 3 must be a text"),
        ({"choice": "maen"}, r"choice: 'maen' must be one of: mean, sum; did you mean 'mean'\."),
        ({"maybe": 0}, r"maybe: 0 must be a whole number, at least 1 or null"),
        ({"resolution": 10}, r"resolution: 10 must be a whole number, at least 3 and odd"),
        ({"pair": [0.9]}, r"pair: \[0\.9\] must be a list of 2 values"),
        ({"pair": [0.9, 1.0]}, r"model\.pair\.1: 1\.0 must be"),
        ({"pair": 0.9}, r"pair: 0\.9 must be a list of 2"),
        ({"widths": [8, "8"]}, r"model\.widths\.1: '8' must be"),
        ({"widths": 8}, r"widths: 8 must be a list"),
        ({"names": []}, r"names: \[\] must be a list"),
        ({"names": ["a", "a"]}, r"names: .* without repetitions"),
        ({"anything": {"deep": [math.nan]}}, r"model\.anything\.deep\.0: NaN must be a finite"),
        ({"whole": 2}, r"^tasks\.x\.model\.whole: 2 must divide count\.$"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        checked(**given)
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(ConfigError, match=r"tasks\.x\.model\.whole is missing; give it\."):
        check({}, CASE, "tasks.x.model", plugins=HERE)
    assert check({}, CASE, "tasks.x.model", plugins=HERE, complete=False) == {}


def test_right_values_pass_in_canonical_form():
    given = {"rate": "1e-1", "pair": ("0.5", 0), "number": 2, "names": ["a"], "maybe": None}
    result = checked(**given)
    assert result == {
        "maybe": None,
        "names": ["a"],
        "number": 2.0,
        "pair": [0.5, 0.0],
        "rate": 0.1,
        "whole": 1,
    }
    assert list(result) == sorted(result)
    assert isinstance(result["number"], float)


def test_a_constraint_may_name_what_the_study_knows():
    with pytest.raises(ConfigError, match=r"key\.count: 9 must be below 9, the points\."):
        check({"whole": 1, "count": 9}, CASE, "key", plugins=HERE, context={"points": 9})
    check({"whole": 1, "count": 9}, CASE, "key", plugins=HERE, context={"points": 10})


def test_an_object_is_made_by_the_same_check():
    made = read(Case, {"whole": 1, "rate": "1e-2", "pair": [0.5, 0.5]}, "key")
    assert made == Case(whole=1, rate=0.01, pair=(0.5, 0.5))
    with pytest.raises(ConfigError, match=r"key\.count: 0 must be"):
        read(Case, {"whole": 1, "count": 0}, "key")
    with pytest.raises(ConfigError, match="'whole' is unknown"):
        read(Case, {"whole": 1}, "key", whole=2)


def test_a_class_within_a_function_is_read_too():
    @dataclass(frozen=True)
    class Local:
        size: PositiveInt = 2

    assert read(Local, {"size": 3}, "key").size == 3
    with pytest.raises(ConfigError, match=r"key\.size: 0 must"):
        read(Local, {"size": 0}, "key")


PLUGIN = """
from mylab import base
from equiscape.models.egnn import EGNN
from equiscape.settings import PositiveInt as Count

class Relaxed(EGNN):
    def __init__(self, *, slack: float = 0.0, **settings):
        super().__init__(layers=3, **settings)

class Inherits(base.Base):
    depth: int

class Inner:
    def __init__(self, **settings):
        self.network = EGNN(**settings)

class Open:
    def __init__(self, size: Count = 1, **others):
        self.others = others

class Unreachable(somewhere.Else):
    pass
"""
BASE = """
class Base:
    CONSTRAINTS = (("low < high", "low must be below high"),)
    def __init__(self, low: int = 1, high: int = 2):
        self.non_hidden = ()
    def forward(self, points):
        return points
"""


@pytest.fixture
def plugins(tmp_path):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab/base.py").write_text(BASE)
    (tmp_path / "mylab/nets.py").write_text(PLUGIN)
    return [tmp_path]


def test_settings_of_a_base_and_those_handed_on_count(plugins):
    relaxed = declared("mylab.nets:Relaxed", plugins)
    egnn = set(declared("equiscape.models.egnn:EGNN").settings)
    assert set(relaxed.settings) == egnn - {"layers"} | {"slack"}
    assert relaxed.forward == ("points",)
    assert "representations" in relaxed.members
    assert check(
        {"hidden": 8}, "mylab.nets:Relaxed", "k", arguments=["num_outputs"], plugins=plugins
    )
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        check({"hiden": 8}, "mylab.nets:Relaxed", "k", arguments=["num_outputs"], plugins=plugins)
    assert set(declared("mylab.nets:Inner", plugins).settings) == egnn
    inherits = declared("mylab.nets:Inherits", plugins)
    assert set(inherits.settings) == {"low", "high"}
    assert [path.name for path in inherits.files] == ["nets.py", "base.py"]
    with pytest.raises(ConfigError, match=r"k\.low: 2 must be below high"):
        check({"low": 2}, "mylab.nets:Inherits", "k", plugins=plugins)


def test_what_cannot_be_read_takes_any_setting_but_no_nan(plugins):
    assert check({"x": 1, "size": 2}, "mylab.nets:Open", "k", plugins=plugins) == {
        "size": 2,
        "x": 1,
    }
    with pytest.raises(ConfigError, match=r"k\.size: 0"):
        check({"size": 0}, "mylab.nets:Open", "k", plugins=plugins)
    with pytest.raises(ConfigError, match=r"k\.x: NaN"):
        check({"x": math.nan}, "mylab.nets:Open", "k", plugins=plugins)
    assert declared("mylab.nets:Unreachable", plugins).open


def test_a_target_that_is_not_there_is_named(plugins):
    with pytest.raises(ConfigError, match=r"no module 'mylab\.gone'; name a folder"):
        declared("mylab.gone:X", plugins)
    with pytest.raises(ConfigError, match=r"has no 'X'; its classes are: Relaxed"):
        declared("mylab.nets:X", plugins)
    (plugins[0] / "mylab/nets.py").write_text("class Broken(:\n")
    with pytest.raises(ConfigError, match=r"line 1 of .*nets\.py is not valid Python"):
        declared("mylab.nets:X", plugins)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a + 2 * b < 8 and b > 1", True),
        ("not a == 1", False),
        ("1 < b <= 3", True),
        ("len(c) == 2 and c[1] > c[0] and max(c) == 5", True),
        ("a if b > 1 else b", 1),
        ("d is None or gone > 3", True),
        ("gone > 3", None),
        ("d > 3", None),
        ("a in [1, 2]", True),
        ("a % 0", None),
    ],
)
def test_expressions_over_settings(expression, value):
    assert evaluate(expression, {"a": 1, "b": 3, "c": [4, 5], "d": None}) == value


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "a.b", "(lambda: 1)()", "[x for x in c]"]
)
def test_nothing_else_is_evaluated(expression):
    with pytest.raises(ValueError, match="is not understood"):
        evaluate(expression, {"a": 1, "c": [1]})
