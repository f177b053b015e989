"""Building an optimizer from a configuration entry: names, the split, AdamW and Lion."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from equiscape import models
from equiscape.errors import ConfigError
from equiscape.optim import OPTIMIZERS, build_optimizer
from equiscape.optim.groups import split_parameters
from equiscape.optim.lion import Lion

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"


def network():
    net = nn.Sequential(
        nn.Embedding(20, 16),
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.Linear(32, 32),
        nn.Linear(32, 7),
        nn.Linear(7, 3),
    )
    net.non_hidden = ("5",)
    return net


def test_split_follows_the_rule():
    split = split_parameters(network())
    assert split["muon"] == [
        "1.weight",
        "3.weight",
    ]  # no embedding, output or side below 8
    assert sorted(split["muon"] + split["adamw"]) == sorted(
        n for n, _ in network().named_parameters()
    )
    assert split_parameters(network(), min_side=7)["muon"] == ["1.weight", "3.weight", "4.weight"]


def test_a_non_hidden_name_is_a_module_not_a_prefix():
    net = nn.ModuleDict({"layer": nn.Linear(8, 8), "layer2": nn.Linear(8, 8)})
    net.non_hidden = ("layer",)
    assert split_parameters(net)["muon"] == ["layer2.weight"]


@pytest.mark.parametrize("name", ["egnn", "pointnet", "dgcnn"])
def test_split_of_the_point_cloud_networks(name):
    model = models.build(name, {"num_outputs": 40}, {})
    split = split_parameters(model)
    sizes = dict(model.named_parameters())
    assert sorted(split["muon"] + split["adamw"]) == sorted(sizes)
    assert all(sizes[n].ndim == 2 and min(sizes[n].shape) >= 8 for n in split["muon"])
    for name in model.non_hidden:
        assert not any(n.startswith(f"{name}.") for n in split["muon"])
    assert not any(sizes[n].shape[1] == 3 for n in split["muon"])  # coordinates in
    assert not any(sizes[n].shape[0] == 40 for n in split["muon"])  # classes out
    # most of a network is hidden matrices: the study compares what happens to those
    hidden = sum(sizes[n].numel() for n in split["muon"])
    assert hidden > 0.85 * sum(p.numel() for p in sizes.values())


MOLECULAR = {
    "gotennet": {"num_outputs": 1},
    "gine": {"num_outputs": 10, "node_categories": [30] * 9, "edge_categories": [8] * 3},
}


@pytest.mark.parametrize("name", MOLECULAR)
def test_split_of_the_molecular_networks(name):
    model = models.build(name, MOLECULAR[name], {})
    split = split_parameters(model)
    sizes = dict(model.named_parameters())
    tables = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    assert tables
    assert set(tables) <= set(split["adamw"])
    outside = tuple(f"{name}." for name in model.non_hidden)
    assert not any(n.startswith(outside) for n in split["muon"])
    hidden = sum(sizes[n].numel() for n in split["muon"])
    assert hidden > 0.85 * sum(p.numel() for p in sizes.values())


def entry_of(name):
    """An entry of this class, with the settings that it needs."""
    entry = {"class": name, "settings": {}}
    if name == "switch":
        entry["settings"] = {"first": {"class": "adamw"}, "second": {"class": "muon"}}
    return entry


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_class_lowers_a_loss(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Linear(32, 1))
    optimizer, split = build_optimizer(net, entry_of(name), "3e-3", "1e-2")
    assert {n for names in split.values() for n in names} == {n for n, _ in net.named_parameters()}
    if hasattr(optimizer, "plan"):
        optimizer.plan(40)
    x = torch.randn(64, 8)
    y = x.prod(1, keepdim=True).sign()

    def loss():
        return (net(x) - y).square().mean()

    first = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.97 * first
    assert all(group["lr"] == 3e-3 for group in optimizer.param_groups)


def test_adamw_is_torch_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 5), nn.Linear(6, 5)
    theirs.load_state_dict(ours.state_dict())
    entry = {"class": "adamw", "settings": {"betas": [0.8, 0.95], "eps": "1e-6"}}
    a, split = build_optimizer(ours, entry, 0.01, 0.1)
    b = torch.optim.AdamW(
        theirs.parameters(), lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6
    )
    assert split == {"adamw": ["weight", "bias"]}
    for i in range(5):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
        for net, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-7)


def test_lion_takes_the_steps_of_its_algorithm():
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    value, momentum = p.detach().clone(), torch.zeros(3, dtype=torch.float64)
    for g in ([1.0, -1.0, 0.0], [-5.0, 2.0, 1.0], [0.1, 30.0, -1.0]):
        g = torch.tensor(g, dtype=torch.float64)
        p.grad = g.clone()
        optimizer.step()
        direction = (0.9 * momentum + 0.1 * g).sign()
        value = value - 0.1 * (direction + 0.2 * value)
        momentum = 0.99 * momentum + 0.01 * g
    torch.testing.assert_close(p.detach(), value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"class": "muom"}, ["optimizers.mine.class", "muom", "did you mean 'muon'"]),
        ({}, ["optimizers.mine.class", "missing"]),
        ({"class": "muon", "settings": {"ns_step": 3}}, ["settings", "ns_step", "ns_steps"]),
        ({"class": "muon", "settings": {"ns_steps": 500}}, ["settings", "ns_steps", "500"]),
        ({"class": "adamw", "settings": {"betas": [0.9]}}, ["settings", "betas"]),
        ({"class": "sgd", "settings": {"momentum": -1}}, ["settings", "momentum"]),
        ({"class": "adamw", "settings": {"lr": 3}}, ["settings", "lr"]),
    ],
)
def test_a_bad_entry_is_named(entry, words):
    with pytest.raises(ConfigError) as caught:
        build_optimizer(network(), {"name": "mine", **entry}, 1e-3, 0)
    for word in words:
        assert word in str(caught.value)


def test_start_up_imports_stay_small():
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import equiscape.optim; assert 'torch' not in sys.modules\n"
        "import torch; from torch import nn\n"
        "net = nn.Linear(8, 8)\n"
        "for name in ('adamw', 'muon', 'lion'):\n"
        "    optimizer, _ = equiscape.optim.build_optimizer(net, {'class': name}, 1e-3, 0)\n"
        "    net(torch.ones(1, 8)).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "heavy = [m for m in ('torch._dynamo', 'torch_geometric', 'pandas') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
