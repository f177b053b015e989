"""Every registered architecture, optimizer, kind of data and analysis holds its contract."""

import pytest

from equiscape import check
from equiscape.analyses import ANALYSES
from equiscape.data import KINDS
from equiscape.declarations import declared
from equiscape.errors import ConfigError
from equiscape.models import ARCHITECTURES
from equiscape.optim import OPTIMIZERS

SMALL = {
    "hidden": 16,
    "layers": 2,
    "k": 4,
    "heads": 4,
    "radial": 8,
    "embedding": 16,
    "channels": [8, 8],
    "walk_channels": 4,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    known = declared(ARCHITECTURES[name]).settings
    settings = {k: v for k, v in SMALL.items() if k in known and name != "permutation-mlp"}
    assert "parameters" in check.check_architecture(name, settings)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name):
    nested = declared(OPTIMIZERS[name]).attributes.get("NESTED", ())
    settings = {inner: {"class": "adamw"} for inner in nested}
    assert "resumes" in check.check_optimizer(name, settings)


@pytest.mark.parametrize("name", KINDS)
def test_dataset(name):
    small = {"procedural": {"classes": 2, "train_per_class": 5, "test_per_class": 2, "points": 16}}
    small |= {"molecules-generated": {"molecules": 20}, "teacher": {"samples": 4, "held": 2}}
    assert name in check.check_dataset(name, small.get(name))


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis(name):
    assert "settings" in check.check_analysis(name)


PLUGIN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *, num_outputs: int):
        super().__init__()
        self.one = nn.Linear(3, 8)
        self.act = {act}
        self.out = nn.Linear(8, num_outputs)
        {extra}
        self.non_hidden = ({name!r}, "out")

    def representations(self):
        return {{"one": self.one}}

    def forward(self, points):
        return self.out(self.act(self.one(points)).mean(1)){shape}
"""


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, None),
        ({"name": "gone"}, "non_hidden: 'gone' is unknown"),
        ({"shape": ".mean(1)"}, r"forward gives \(4,\), not \(4, 3\)"),
        ({"extra": "self.m = nn.Parameter(torch.ones(2, 2))"}, r"m \(2, 2\) is no weight"),
    ],
)
def test_a_plug_in_that_breaks_the_contract_is_named(tmp_path, monkeypatch, parts, message):
    filled = {"act": "nn.Tanh()", "extra": "", "name": "one", "shape": "", **parts}
    module = f"net{abs(hash(str(parts)))}"
    (tmp_path / f"{module}.py").write_text(PLUGIN.format(**filled))
    monkeypatch.syspath_prepend(str(tmp_path))
    if message is None:
        assert "parameters" in check.check_architecture(f"{module}:Net", {}, [str(tmp_path)])
        return
    with pytest.raises(ConfigError, match=message):
        check.check_architecture(f"{module}:Net", {}, [str(tmp_path)])


def test_the_command_ends_in_one_sentence(capsys, tmp_path):
    assert check.main(["analysis", "hessian"]) == 0
    assert "over representative" in capsys.readouterr().out
    assert check.main(["architecture", "egn"]) == 1
    assert "did you mean 'egnn'" in capsys.readouterr().err
    assert check.main(["study", str(tmp_path / "gone.yaml")]) == 1
    assert "does not exist" in capsys.readouterr().err
