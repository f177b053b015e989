"""Training steps through torch.compile: the same function, whatever the architecture."""

import shutil

import pytest
import torch
from molecule_batches import random_molecules
from test_gine import graphs, network
from test_models_fast import assert_same, medium
from test_models_pointclouds import architectures, clouds
from test_training_cell import train
from training_case import case

from equiscape.errors import DeviceError
from equiscape.models.gotennet import GotenNet


@architectures
def test_a_point_cloud_network_is_one_graph(architecture):
    model, plain = (medium(architecture, torch.float64, True) for _ in range(2))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    points = clouds(4, 40).double()
    assert_same(compiled, plain, points, values=1e-9, gradients=1e-9)


def gotennet():
    torch.manual_seed(0)
    settings = {"hidden": 16, "layers": 2, "heads": 2, "radial": 8, "dropout": 0.0}
    return GotenNet(**settings).double(), random_molecules([4, 7, 5])


@pytest.mark.parametrize("case", [gotennet, lambda: (network(), graphs((5, 4, 6)))])
def test_a_molecular_network_compiles_to_the_same_function(case):
    (model, inputs), (plain, _) = case(), case()
    compiled = torch.compile(model, backend="aot_eager")
    for forward in (compiled, plain):
        forward(*inputs).square().sum().backward()
    torch.testing.assert_close(compiled(*inputs), plain(*inputs), rtol=1e-9, atol=1e-9)
    for (name, p), q in zip(plain.named_parameters(), model.parameters()):
        scale = max(1.0, p.grad.abs().max().item())
        assert (p.grad - q.grad).abs().max() <= 1e-9 * scale, name


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_a_compiled_cell_is_the_same_cell():
    tasks = [case(epochs=2), case(epochs=2, compile=True)]
    for task in tasks:
        task.model_settings["dropout"] = 0.0  # compiled code draws other masks
    # without an optimizer that turns the rounding of small gradients into steps
    plain, compiled = (train(task, optimizer={"name": "sgd", "class": "sgd"}) for task in tasks)
    for column in ("train_loss", "validation_loss", "test_loss"):
        expected, actual = (
            torch.tensor(result.history[column].to_numpy()) for result in (plain, compiled)
        )
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)
    assert list(compiled.checkpoint["model"]) == list(plain.checkpoint["model"])


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    import torch._inductor.config as inductor

    torch.compiler.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    with pytest.raises(DeviceError, match=r"training\.compile: .*no-such-compiler.*set it to"):
        train(case(epochs=1, compile=True))
