"""Every declared setting with a value of a wrong type, out of range, NaN, or misspelled.

The cases come from the declarations, so a new setting is tried without being named here. All must
be refused before any job, in one sentence that names the key.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml

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
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
GIVEN = ("params", "lr", "weight_decay")
DATASET_OF = {  # a kind of data that each architecture reads
    "gotennet": ("molecules-generated", "energy"),
    "gine": ("zinc", None),
    "permutation-mlp": ("teacher", None),
}


SECRET = "holds a password or a token"
DEMO = yaml.safe_load((ROOT / "config/demo.yaml").read_text())


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


GRID = {"grid": {"lr": [1], "wd": [0]}}
TOP = [
    ("tasks/egnn/target", "energy", "tasks.egnn.target: .* nothing to choose from; remove it"),
    ("tasks/gotennet-energy/target", None, "tasks.gotennet-energy.target is missing; give one"),
    ("tasks/gotennet-energy/target", "enrgy", "did you mean 'energy'"),
    ("tasks/egnn/dataset", "molecules", "does not read data of kind 'molecules-generated'"),
    ("tasks/gotennet-energy/dataset", "shapes", "gotennet-energy.*"),
    ("tasks/egnn/model/k", 128, "tasks.egnn.model.k: 128 must be below 128, the points"),
    ("tasks/egnn/architecture", "gine", "gine .* 'procedural'"),
    ("tasks/pointnet/training", {"micro_batch": 8}, "tasks.pointnet.*micro_batch"),
    ("tasks/pointnet/training", {"batch_size": 1}, "tasks.pointnet.*batch_size"),
    ("tasks/egnn/data", {"points": 64}, "set datasets.shapes.points"),
    ("tasks/egnn/data", {"node_budget": 64}, "tasks.egnn.data: 'node_budget' is unknown"),
    ("datasets/shapes/classes", 17, "datasets.shapes.classes: 17 must be .* at most 16"),
    ("datasets/shapes/expect", {"train": 3}, "expect.train must be"),
    ("datasets/shapes/points", 10**11, "shapes.points: 100000000000 must .* at most 1000000"),
    ("datasets/shapes/train_per_class", 10**6, "shapes.points: .* than 1e9 points in all"),
    ("datasets/shapes/validation", 0.999, "shapes.validation: 0.999 must leave at least one"),
    ("datasets/shapes/validation_minimum", 10**6, "shapes.validation_minimum: .* must leave"),
    ("datasets/molecules/limit", 1, "molecules.limit: 1 must leave a molecule for each split"),
    ("datasets/molecules/splits", {"train": 1, "validation": 1}, "splits.train must be at least 2"),
    ("datasets/molecules/molecules", 10**11, "molecules.molecules: 100000000000 must"),
    ("datasets/x", {"kind": "zinc", "source": "pyg", "limit": 1}, "x.limit: 1 must be at least 12"),
    ("datasets/x", {"kind": "zinc", "source": "pyg", "limit": 3,
                    "splits": {"train": 98, "validation": 1, "test": 1}}, "x.limit: 3 must leave"),
    ("datasets/x", {"kind": "zinc", "source": "pyg", "splits": {"train": 1}}, "train must be at l"),
    ("datasets/x", {"kind": "zinc", "source": "pyg", "walk_steps": 10**9}, "at most 1000"),
    ("datasets/x", {"kind": "peptides-func", "source": "http://a/b", "limit": 6}, "at least 7"),
    ("datasets/x", {"kind": "qm9", "source": "pyg", "limit": 13}, "x.limit: 13 must be at least"),
    ("datasets/x", {"kind": "qm9", "source": "http://a/b", "limit": 50, "expect":
                    {"molecules": 20}}, "x.limit: 50 must be at most the molecules"),
    ("datasets/x", {"kind": "qm9", "source": "http://a/b", "splits": {"train": 50}, "expect":
                    {"molecules": 50}}, "x.splits: .* must sum to at most"),
    ("datasets/x", {"kind": "pointcloud", "source": "http://a/b", "expect": {"train": 1}},
     "x.validation: 0.1 must leave"),
    ("datasets/x", {"kind": "pointcloud", "source": "http://a/b", "expect": {"classes": 1}},
     "x: expect.classes must be at least 2"),
    ("datasets/x", {"kind": "pointcloud", "source": "http://a/b", "expect":
                    {"classes": 40, "train": 39}}, "x: expect.classes must be at most"),
    ("datasets/x", {"kind": "files", "source": "http://a/b", "points": 4096},
     "x.points: 4096 must be at most 2048, the samples"),
    ("datasets/x", {"kind": "teacher", "hidden": ["regulr"]}, "hidden.0: 'regulr'.*'regular'"),
    ("datasets/x", {"kind": "teacher", "hidden": ["10000 trivial"]}, "hidden.0: .* is too wide"),
    ("datasets/x", {"kind": "teacher", "inputs": "S3/C5"}, "x.inputs: 'S3/C5' is unknown"),
    ("datasets/x", {"kind": "teacher", "group": "S9x"}, "x.group: 'S9x' is not a group"),
    ("datasets/x", {"kind": "teacher", "group": "S99"}, "x.group: S99 has more than 120 elements"),
    ("datasets/x", {"kind": "teacher", "group": "C4", "outputs": "sign"}, "x.outputs: 'sign' is"),
    ("optimizers/muon/settings", {"min_side": 100_000}, "min_side: 100000 must .* at most 65536"),
    ("tasks/egnn/model/hidden", 10**8, "model.hidden: 100000000 must be .* at most 65536"),
    ("tasks/egnn/model/layers", 10**6, "model.layers: 1000000 must be .* at most 1000"),
    ("analyses/hessian", {"eigenvalues": 500}, "hessian.max_iterations: 100 must be .*500"),
    ("training/epochs", 10**9, "training.epochs: 1000000000 must be .* at most 10000000"),
    ("training/batch_size", 10**11, "training.batch_size: 100000000000 must be at most 1000000000"),
    ("tasks/egnn/model/hidden", "\u00b2", "model.hidden: '\u00b2' must be a whole number"),
    ("tasks/egnn/model/hidden", 1e300, r"model.hidden: 1e\+300 must be a whole number.*65536\.$"),
    ("datasets/shapes/expect", {"molecules": 3}, "datasets.shapes.expect: 'molecules'"),
    ("datasets/shapes/source", "data", "datasets.shapes.source: .* are generated; remove it"),
    ("datasets/shapes/sha256", "0" * 64, "datasets.shapes.sha256: .* remove it"),
    ("datasets/shapes/corruptions/names", ["shere"], "names.0: 'shere'.*'shear'"),
    ("datasets/shapes/corruptions/severities", [6], "severities.0: 6 must be one of"),
    ("datasets/shapes/corruptions/sha256", "0" * 64, "corruptions.sha256: .*remove it"),
    ("datasets/molecules/splits", {"train": 600, "validation": 1}, "splits.*600"),
    ("datasets/molecules/splits", {"trian": 6}, "splits: 'trian'.*'train'"),
    ("datasets/molecules/corruptions", {"source": "generated"}, "only clouds can be corrupted"),
    ("datasets/x", {"kind": "pointcloud", "source": "ftp://a/b"}, "is not an http address"),
    ("datasets/x", {"kind": "pointcloud", "source": "s3://a/b"}, "is not an http address"),
    ("datasets/x", {"kind": "pointcloud", "source": "https://me:word@a.org/b.zip"}, SECRET),
    ("datasets/x", {"kind": "pointcloud", "source": "https://a.org/b.zip?token=abc"}, SECRET),
    ("datasets/x", {"kind": "pointcloud", "source": "pyg"}, "does not fetch data of kind"),
    ("datasets/x", {"kind": "qm9", "source": "pyg", "sha256": "0" * 64}, "x.sha256: .*remove it"),
    ("datasets/x", {"kind": "qm9", "source": "pyg", "expect": {"molecules": 1}}, "molecules must"),
    ("datasets/x", {"kind": "qm9", "source": "pyg", "splits": {"train": 130831}}, "at most 130831"),
    ("datasets/x", {"kind": "zinc", "source": "http://a/b", "sha256": "12"}, "64 hexadecimal"),
    ("datasets/x", {"kind": "zinc", "source": "pyg", "mirrors": ["http://a/b"]}, "x.mirrors"),
    ("datasets/x", {"kind": "zinc", "source": "config", "sha256": "0" * 64}, "a folder has no"),
    ("datasets/shapes-corrupted", {"kind": "procedural"}, "may not end in -corrupted"),
    ("optimizers/muon.choice", {"class": "sgd", **GRID}, "end in .choice"),
    ("optimizers/a\nb", {"class": "sgd", **GRID}, "must be lower-case"),
    ("optimizers/muon/settings", {"adjust_lr_fn": "math_rms"}, "did you mean 'match_rms_adamw'"),
    ("optimizers/x", {"class": "sgd", "settings": {"nesterov": True}, **GRID}, "nesterov: true"),
    ("optimizers/muon/grid/lr", [math.nan], "optimizers.muon.grid.lr.0: NaN"),
    ("optimizers/muon/grid/lr", [True], "optimizers.muon.grid.lr.0: true"),
    ("selection/seeds", [2**63], "selection.seeds.0: 9223372036854775808 must be"),
    ("final/seeds", [1.0], "final.seeds.0: 1.0 must be a whole number.*write 1"),
    ("threads", 2.0, "threads: 2.0 must be .*; write 2"),
    ("threads", True, "threads: true must be a whole number"),
    ("pathvars", {"result": "x"}, "pathvars: 'result' is unknown; did you mean 'results'"),
    ("pathvars", {"results": ""}, "pathvars.results: '' must be a folder"),
    ("pathvars", {"results": "x", "resources": "x"}, r"results \(x\) and resources \(x\) must lie"),
    ("pathvars", {"results": "x", "resources": "x/y"}, "must lie apart; give two folders"),
    ("pathvars", {"results": "resources/a"}, r"results \(resources/a\) and resources "),
    ("pathvars", {"resources": "results"}, "must lie apart"),
    ("pathvars", {"results": "a/../b"}, "results: 'a/../b' must be spelled plainly; write b"),
    ("pathvars", {"results": "./x/"}, "results: './x/' must be spelled plainly; write x"),
    ("pathvars", {"results": "."}, "results: '.' must be .* write a folder of its own"),
    ("pathvars", {"results": "/"}, "results: '/' must be .* write a folder of its own"),
    ("pathvars", {"results": "~/x"}, "would be a folder named ~; write '/.*/x'"),
    ("pathvars", {"results": "$HOME/x"}, r"holds '\$', which nothing fills in; leave it out"),
    ("pathvars", {"results": "a*b"}, r"holds '\*', which shells read as patterns"),
    ("pathvars", {"results": "{a}"}, "holds '{', which Snakemake reads as wildcards"),
    ("pathvars", {"results": "a\tb"}, "a control character or a space at an end; leave it out"),
    ("pathvars", {"results": "x "}, "a space at an end; leave it out"),
    ("pathvars", {"results": "s3://a/b"}, "is an address; give a folder of this machine"),
    ("pathvars", {"results": "README.md"}, "results: README.md is a file; give a folder"),
    ("pathvars", {"results": "a" * 300}, "has a name of more than 200 bytes; give a shorter one"),
    ("pathvars", {"results": 1}, "pathvars.results"),
    ("resume", "", "resume: '' must be a folder"),
    ("resume", "a\nb", "resume: .* holds a line feed"),
    ("resume", "a" * 300, "resume: .* has a name of more than 200 bytes"),
    ("device", "cpu\n", "device"),
    ("threads", 10**9, "threads: 1000000000 must be .* at most 4096|threads"),
    ("tasks", {"a" * 61: DEMO["tasks"]["egnn"]}, "tasks: the name .* has 61 letters; choose one"),
    ("optimizers", {"a" * 61: {"class": "sgd", **GRID}}, "optimizers: the name .* has 61 letters"),
    ("optimizers/muon/grid/wd", [-0.0], "grid.wd.0: '-0.0' must be spelled shorter; write|grid.wd"),
    ("optimizers/muon/grid/lr", ["0." + "0" * 99 + "1"], "must be spelled shorter; write"),
    ("optimizers/muon/grid/lr", [10**400], "muon.grid.lr: 10{59} must be finite"),
    ("datasets/x", {"kind": "pointcloud", "source": "a" * 5000}, "source: .* cannot be read"),
    ("datasets/x", {"kind": "pointcloud", "source": "/dev/null"}, "neither a file nor a folder"),
    ("datasets/x", {"kind": "pointcloud", "source": "http://a:99999/b"}, "is not an http address"),
    ("datasets/x", {"kind": "pointcloud", "source": "http://a b/c"}, "is not an http address"),
    ("resume", "README.md/points", "resume: .*README.md is not a folder"),
    ("plugins", ["gone"], "plugins.0: .*gone is no folder"),
    ("analyses/hesian", {}, "analyses: 'hesian' is unknown; did you mean 'hessian'"),
    ("analyses/hessian/seeds", "some", "analyses.hessian.seeds: 'some' must be one of"),
    ("analyses/hessian/tasks", ["egn"], "hessian.tasks.0: 'egn' .* did you mean 'egnn'"),
    ("analyses/hessian/tasks", [], "analyses.hessian.tasks"),
    ("tasks/egnn/analyses", {"hesian": {}}, "tasks.egnn.analyses: 'hesian'"),
    ("training/schedule", {"name": "cosin"}, "training.schedule.name: 'cosin'.*'cosine'"),
    ("training/schedule", {"warmup_epochs": 99}, "training.schedule.warmup_epochs: 99"),
    ("training/recorders", ["gradient_nrom"], "recorders.0: 'gradient_nrom'"),
    ("training/snapshots", [0, 99], "snapshots.* 99|snapshots"),
    ("selection/training", {"epochs": "3"}, "selection.training.epochs: '3'.*without quotes"),
    ("report/baseline", "sgd", "report.baseline: 'sgd'"),
    ("tasks/egnn/architecture", "mylab.nets:SchNet", "there is no module 'mylab.nets'"),
    ("tasks/egnn/architecture", "equiscape.models.egnn:EGN", "has no 'EGN'; its classes are"),
    ("tasks/egnn/architecture", "torch.nn:Linear", "torch.nn:Linear.* has no"),
]  # fmt: skip


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
