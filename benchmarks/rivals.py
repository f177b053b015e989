"""The same networks from stock layers: what a user of torch-geometric would run instead of ours.

Every rival is built from one of our networks and holds copies of its weights, so both compute the
same function. Neighbors come from our own exact search in both (torch-cluster is not needed), so
that only the layers are compared.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, MessagePassing, global_max_pool, global_mean_pool

from equiscape.models.dgcnn import DGCNN, SLOPE
from equiscape.models.egnn import EGNN, EGNNLayer
from equiscape.models.pointnet import PointNet
from equiscape.ops.neighbors import knn


def edge_index(neighbors: Tensor) -> Tensor:
    """``[B, N, k]`` neighbors as torch-geometric's ``[2, B N k]`` sources and targets."""
    clouds, points, k = neighbors.shape
    offset = torch.arange(0, clouds * points, points, device=neighbors.device).view(-1, 1, 1)
    target = torch.arange(clouds * points, device=neighbors.device).repeat_interleave(k)
    return torch.stack([(neighbors + offset).flatten(), target])


def cloud_of(points: Tensor) -> Tensor:
    """``[B N]`` index of each point's cloud."""
    return torch.arange(points.shape[0], device=points.device).repeat_interleave(points.shape[1])


def batch_norm(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """A stock batch norm with the parameters and statistics of ours."""
    stock = nn.BatchNorm1d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    stock.load_state_dict(norm.state_dict())
    return stock.to(norm.weight.device, norm.weight.dtype)


class StockPointNet(nn.Module):
    """PointNet as kernel-one convolutions over channel-first clouds."""

    def __init__(self, model: PointNet):
        super().__init__()
        layers: list[nn.Module] = []
        for layer in model.layers:
            rows, columns = layer.linear.weight.shape
            convolution = nn.Conv1d(columns, rows, 1, bias=False)
            convolution.weight = nn.Parameter(layer.linear.weight.detach().unsqueeze(2).clone())
            layers += [convolution, batch_norm(layer.norm), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = deepcopy(model.head)

    def forward(self, points: Tensor) -> Tensor:
        return self.head(self.layers(points.transpose(1, 2)).max(2).values)


class StockDGCNN(nn.Module):
    """DGCNN from torch-geometric's ``EdgeConv``."""

    def __init__(self, model: DGCNN):
        super().__init__()
        self.k = model.k
        self.edges = nn.ModuleList()
        for edge in model.edges:
            linear = nn.Linear(edge.linear.in_features, edge.linear.out_features, bias=False)
            mlp = nn.Sequential(linear, batch_norm(edge.norm), nn.LeakyReLU(SLOPE))
            self.edges.append(EdgeConv(mlp, aggr="max"))  # which initializes its MLP anew
            mlp[1].load_state_dict(edge.norm.state_dict())
            # EdgeConv hands over [x_i, x_j - x_i], ours is written on [x_j - x_i, x_i]
            difference, own = edge.linear.weight.detach().chunk(2, dim=1)
            linear.weight = nn.Parameter(torch.cat([own, difference], dim=1))
        self.embedding = nn.Sequential(
            deepcopy(model.embedding.linear), batch_norm(model.embedding.norm), nn.LeakyReLU(SLOPE)
        )
        self.head = deepcopy(model.head)

    def forward(self, points: Tensor) -> Tensor:
        batch = cloud_of(points)
        x, outputs = points.flatten(0, 1), []
        for edge in self.edges:
            neighbors = knn(x.view(*points.shape[:2], -1), self.k, include_self=True)
            x = edge(x, edge_index(neighbors))
            outputs.append(x)
        x = self.embedding(torch.cat(outputs, dim=1))
        return self.head(torch.cat([global_max_pool(x, batch), global_mean_pool(x, batch)], dim=1))


class StockEGNNLayer(MessagePassing):
    """The usual EGNN layer on torch-geometric's ``MessagePassing``."""

    def __init__(self, layer: EGNNLayer):
        super().__init__(aggr="add")
        self.phi_e, self.phi_h = deepcopy(layer.phi_e), deepcopy(layer.phi_h)
        self.phi_x = deepcopy(layer.phi_x)

    def forward(self, h: Tensor, x: Tensor, edges: Tensor, k: int) -> tuple[Tensor, Tensor]:
        out = self.propagate(edges, h=h, x=x)
        if self.phi_x is not None:
            x = x + out[:, h.shape[1] :] / k
        return h + self.phi_h(torch.cat([h, out[:, : h.shape[1]]], dim=1)), x

    def message(self, h_i: Tensor, h_j: Tensor, x_i: Tensor, x_j: Tensor) -> Tensor:
        difference = x_i - x_j
        squared = difference.square().sum(1, keepdim=True)
        message = self.phi_e(torch.cat([h_i, h_j, squared], dim=1))
        if self.phi_x is None:
            return message
        return torch.cat([message, difference * self.phi_x(message)], dim=1)


class StockEGNN(nn.Module):
    """EGNN from :class:`StockEGNNLayer`."""

    def __init__(self, model: EGNN):
        super().__init__()
        self.k = model.k
        self.embedding = deepcopy(model.embedding)
        self.layers = nn.ModuleList(StockEGNNLayer(layer) for layer in model.layers)
        self.head = deepcopy(model.head)

    def forward(self, points: Tensor) -> Tensor:
        batch, edges = cloud_of(points), edge_index(knn(points, self.k, include_self=False))
        h = self.embedding((points - points.mean(1, keepdim=True)).norm(dim=2).view(-1, 1))
        x = points.flatten(0, 1)
        for layer in self.layers:
            h, x = layer(h, x, edges, self.k)
        return self.head(torch.cat([global_max_pool(h, batch), global_mean_pool(h, batch)], dim=1))


STOCK = {PointNet: StockPointNet, DGCNN: StockDGCNN, EGNN: StockEGNN}


def stock(model: nn.Module) -> nn.Module:
    """The rival of ``model``, with its weights, mode, dtype and device."""
    rival = STOCK[type(model)](model)
    return rival.train(model.training)
