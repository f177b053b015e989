"""The benchmark of molecules is fair: the released form with our weights computes our function."""

import sys
from pathlib import Path

import pytest
import torch
from molecule_batches import random_molecules
from test_gine import graphs, network

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
pytest.importorskip("torch_geometric")
from rivals_molecules import StockGINE, StockGotenNet
from torch_geometric.data import Batch, Data

from equiscape.models.gotennet import GotenNet


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("value_heads", ["parts", "concatenated"])
def test_gotennet_edge_by_edge_computes_the_same(smooth, value_heads):
    torch.manual_seed(0)
    settings = {"smooth": smooth, "value_heads": value_heads, "cutoff": 3.0}
    model = GotenNet(hidden=16, layers=3, heads=4, radial=8, **settings).double().eval()
    z, positions, edges, graph, size, largest = random_molecules((6, 2, 4), cutoff=3.0)
    batch = Batch(z=z, pos=positions, batch=graph, _num_graphs=size)
    rival = StockGotenNet(model)
    ours, theirs = model(z, positions, edges, graph, size, largest), rival(batch)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-9)
    for output in (ours, theirs):
        output.sum().backward()
    for (name, mine), other in zip(model.named_parameters(), rival.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(other.grad, mine.grad, rtol=0, atol=1e-8, msg=name)


def test_gine_on_collated_graphs_computes_the_same():
    model = network()
    features, edge_index, bonds, walks, graph, size = graphs()
    each = []
    for g in range(size):
        nodes = graph == g
        edges = nodes[edge_index[0]]
        first = int(nodes.nonzero()[0])
        data = Data(x=features[nodes], edge_index=edge_index[:, edges] - first)
        data.edge_attr, data.walks = bonds[edges], walks[nodes]
        each.append(data)
    expected = model(features, edge_index, bonds, walks, graph, size)
    found = StockGINE(model)(Batch.from_data_list(each))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
