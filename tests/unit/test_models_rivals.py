"""The benchmark is fair: a stock rival with our weights computes our function."""

import sys
from pathlib import Path

import pytest
import torch
from test_models_fast import close, medium
from test_models_pointclouds import architectures, clouds

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
stock = pytest.importorskip("rivals", reason="torch-geometric is not installed").stock


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_stock_layers_compute_the_same(architecture, train):
    model = medium(architecture, torch.float64, train)
    rival = stock(model)
    points = clouds(4, 100) / 2
    close(rival(points), model(points), 1e-9)
    target = torch.arange(4)
    for network in (model, rival):
        torch.nn.functional.cross_entropy(network(points), target).backward()
    close(rival.head.output.weight.grad, model.head.output.weight.grad, 1e-9)
    first = next(p for p in model.parameters() if p.dim() == 2)
    theirs = next(p for p in rival.parameters() if p.dim() > 1)
    assert torch.isclose(first.grad.norm(), theirs.grad.norm(), rtol=1e-9)
