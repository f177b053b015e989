"""Every declared setting with a value of a wrong type, out of range, NaN, or misspelled.

The cases come from the declarations, so a new setting is tried without being named here. All must
be refused before any job, in one sentence that names the key.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from battery_cases import DEMO, ROOT, TOP

from equiscape.analyses import ANALYSES
from equiscape.configuration import start
from equiscape.configuration.kinds import kind_of
from equiscape.data import KINDS
from equiscape.declarations import declared, nested
from equiscape.errors import ConfigError
from equiscape.hints import Above, AtLeast, AtMost, Below, Odd, nested_in
from equiscape.models import ARCHITECTURES
from equiscape.optim import OPTIMIZERS
from equiscape.optim.schedules import SCHEDULES

LARGEST = 10**9  # of a whole number without an upper bound of its own
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
GIVEN = ("params", "lr", "weight_decay")
DATASET_OF = {  # a kind of data that each architecture reads
    "gotennet": ("molecules-generated", "energy"),
    "gine": ("zinc", None),
    "permutation-mlp": ("teacher", None),
}


def base() -> dict:
    return copy.deepcopy(DEMO)


def small() -> dict:
    """The demo with one task, so that a case takes milliseconds."""
    config = base()
    config["tasks"] = {"egnn": config["tasks"]["egnn"]}
    del config["datasets"]["molecules"]
    del config["analyses"]["dynamics"]  # this task keeps no snapshots
    return config


COMPARISONS = {
    AtLeast: lambda value, bound: value >= bound.bound,
    AtMost: lambda value, bound: value <= bound.bound,
    Above: lambda value, bound: value > bound.bound,
    Below: lambda value, bound: value < bound.bound,
    Odd: lambda value, bound: value % 2 == 1,
}


def wrong(hint: Any) -> list[Any]:
    """Values that ``hint`` does not allow: NaN, other types, and those beyond each bound."""
    values: list[Any] = [
        math.nan,
        math.inf,
        "nan",
        {"a": 1},
        [[1]],
        "a\nb",
        True,
        8.0,
        -1,
        "64",
        10**11,
        None,
    ]
    return [value for value in [*values, None, *beyond(hint)] if not allowed(value, hint)]


def beyond(hint: Any) -> list[Any]:
    found = []
    for bound in getattr(hint, "__metadata__", ()):
        if isinstance(bound, AtLeast | Above) and get_args(hint)[0] in (int, float):
            found.append(bound.bound - 1)
        if isinstance(bound, AtMost | Below) and get_args(hint)[0] in (int, float):
            found.append(bound.bound + 1)
    for inner in get_args(hint) if get_origin(hint) is not Literal else ():
        if inner is not hint:
            found += beyond(inner)
    return found


def allowed(value: Any, hint: Any) -> bool:
    """Whether ``value`` is right by another way of reading types than the library's own."""
    origin, inner = get_origin(hint), get_args(hint)
    if nested_in(hint) is not None:
        return value == {}
    if origin is Annotated:
        if not allowed(value, inner[0]):
            return False
        if inner[0] is int and not any(type(b) in (AtMost, Below) for b in hint.__metadata__):
            return -LARGEST <= value <= LARGEST and bounded(value, hint)
        return bounded(value, hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is not None and origin not in (list, tuple, dict, Mapping, Sequence):  # a union
        return any(allowed(value, member) for member in inner)
    if hint is int:
        return type(value) is int
    if hint is float:
        try:
            return type(value) in (int, float, str) and math.isfinite(float(value))
        except ValueError:
            return False
    if hint is str or hint is bool:
        return type(value) is hint
    if hint in (None, NoneType):
        return value is None
    if hint is Any:
        return not (isinstance(value, float) and not math.isfinite(value))
    if origin in (Mapping, dict) or hint is dict:
        return isinstance(value, dict) and (not inner or get_origin(inner[0]) is not Literal)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(allowed(item, inner[0]) for item in value)
    raise AssertionError(f"teach this test the type {hint}")


def bounded(value: Any, hint: Any) -> bool:
    """Whether a value of the right type keeps the bounds of ``hint``."""
    size = len(value) if isinstance(value, list | tuple) else value
    size = float(size) if isinstance(size, str) and get_args(hint)[0] is float else size
    known = [b for b in hint.__metadata__ if type(b) in COMPARISONS]
    return all(COMPARISONS[type(b)](size, b) for b in known)


def places() -> list[tuple[str, Any, Any, Any]]:
    """(key, hint, prepare a configuration, where in it the setting goes) of every setting."""
    found = []

    def add(key, settings, prepare, path, skip=()):
        for name, setting in settings.items():
            if name not in skip:
                found.append((f"{key}.{name}", setting.hint, prepare, [*path, name]))
        found.append((f"{key}.", None, prepare, path))

    for name in KINDS:

        def data(config, name=name):
            config["datasets"]["tried"] = dataset(name)

        add(
            f"datasets.tried({name})",
            kind_of(name, "").settings.settings,
            data,
            ["datasets", "tried"],
        )
    for name, target in ARCHITECTURES.items():
        kind, chosen = DATASET_OF.get(name, ("procedural", None))
        arguments = kind_of(kind, "").arguments

        def task(config, name=name, kind=kind, chosen=chosen):
            config["datasets"]["tried"] = dataset(kind)
            config["tasks"]["tried"] = {"architecture": name, "dataset": "tried", "model": {}}
            config["tasks"]["tried"]["training"] = {"augmentation": None, "label_smoothing": 0}
            config["tasks"]["tried"] |= {"target": chosen} if chosen else {}

        path = ["tasks", "tried", "model"]
        add(f"tasks.tried({name}).model", declared(target).settings, task, path, skip=arguments)
    for name, target in OPTIMIZERS.items():

        def optimizer(config, name=name, target=target):
            names = declared(target).attributes.get("NESTED", ())
            entry = {"class": name, "settings": {inner: {"class": "adamw"} for inner in names}}
            config["optimizers"]["tried"] = entry | {"grid": {"lr": ["1e-2"], "wd": [0]}}

        path = ["optimizers", "tried", "settings"]
        add(f"optimizers.tried({name})", declared(target).settings, optimizer, path, skip=GIVEN)
    for name, target in SCHEDULES.items():

        def schedule(config, name=name):
            config["training"]["schedule"] = {"name": name}

        path = ["training", "schedule"]
        add(f"training.schedule({name})", declared(target).settings, schedule, path)
    for name, analysis in ANALYSES.items():

        def listed(config, name=name):
            config["analyses"][name] = {}
            config["training"]["snapshots"] = [1]  # for an analysis of these

        settings = nested(analysis.module, "Settings").settings
        add(f"analyses.{name}", settings, listed, ["analyses", name])
    training = declared("equiscape.training.settings:Settings").settings
    add("training", training, lambda config: None, ["training"], skip=("schedule",))
    augmentation = kind_of("procedural", "").augmentation.settings

    def augmented(config):
        config["training"]["augmentation"] = {}

    add("training.augmentation", augmentation, augmented, ["training", "augmentation"])
    corruptions = declared("equiscape.data.corrupted:Settings").settings
    add("corruptions", corruptions, lambda config: None, ["datasets", "shapes", "corruptions"])
    return found


def dataset(name: str) -> dict:
    """An entry of a kind of data, with a source where it needs one."""
    kind = kind_of(name, "")
    source = "pyg" if kind.downloads else "https://example.org/data.zip"
    needed = {"targets": {"gap": "eV"}} if kind.targets == "targets" else {}
    return {"kind": name, **({} if kind.embedded else {"source": source}), **needed}


def put(config: dict, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    config[path[-1]] = value


def refusal(config: dict) -> str | None:
    """The sentence that refuses a configuration; None if it is accepted."""
    try:
        start.study(config, SCHEMA, root=ROOT)
    except ConfigError as error:
        return str(error)
    return None


def test_the_configurations_that_the_cases_start_from_are_right():
    for key, hint, prepare, _ in places():
        if hint is None:
            config = small()
            prepare(config)
            assert refusal(config) is None, key


def test_every_wrong_value_of_every_setting_is_refused():
    accepted, odd, tried = [], [], 0
    for key, hint, prepare, path in places():
        for value in [0] if hint is None else wrong(hint):
            config = small()
            prepare(config)
            where = [*path, "mispelt"] if hint is None else path
            put(config, where, value)
            sentence = refusal(config)
            tried += 1
            if sentence is None:
                accepted.append((key, value))
            elif "\n" in sentence or not names(sentence, path):
                odd.append((key, value, sentence))
    assert tried >= 1000
    assert not accepted
    assert not odd


def names(sentence: str, path: list[str]) -> bool:
    """Whether a sentence names the key, or the key of the map that holds it."""
    return sentence.startswith((".".join(path), ".".join(path[:-1])))


@pytest.mark.parametrize(("path", "value", "message"), TOP)
def test_what_does_not_fit_together_is_refused(path, value, message):
    config = base()
    *parents, last = path.split("/")
    at = config
    for part in parents:
        at = at.setdefault(part, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(ConfigError, match=message) as caught:
        start.study(config, SCHEMA, root=ROOT)
    assert "\n" not in str(caught.value)


SIZED = [name for name in KINDS if "splits" in kind_of(name, "").settings.settings]


@pytest.mark.parametrize("name", SIZED)
def test_no_spread_can_be_taken_of_one_training_sample(name):
    config = small()
    config["datasets"]["tried"] = {**dataset(name), "splits": {"train": 1}}
    sentence = refusal(config)
    assert sentence is not None
    assert sentence.startswith("datasets.tried.splits.train: 1 must be at least 2")


def test_a_configuration_that_holds_itself_is_refused():
    config = small()
    config["tasks"]["egnn"]["model"]["head"] = config  # head: &a [*a] in YAML
    sentence = refusal(config)
    assert sentence is not None
    assert "holds itself" in sentence


def test_a_number_of_thousands_of_digits_is_refused_in_a_short_sentence():
    config = small()
    config["tasks"]["egnn"]["model"]["hidden"] = 1 << 20_000  # 0xfff... in YAML; Python prints none
    sentence = refusal(config)
    assert sentence is not None
    assert sentence.startswith("tasks.egnn.model.hidden: a number of 20001 bits must be")


def test_a_number_that_yaml_reads_as_text_is_accepted_everywhere():
    for key, hint, prepare, path in places():
        members = [hint, *get_args(hint)] if hint is not None else []
        if not any(
            m is float or (get_origin(m) is Annotated and get_args(m)[0] is float) for m in members
        ):
            continue
        text = next((t for t in ("1e-1", "5e-1", "1", "0", "2e0") if allowed(t, hint)), None)
        if text is None:
            continue
        config = small()
        prepare(config)
        put(config, path, text)
        sentence = refusal(config)
        assert sentence is None or "must be a" not in sentence, (key, sentence)
