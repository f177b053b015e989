"""The point-cloud networks as their papers write them, tensors for every edge and all.

A reference shares nothing with the product but the modules that hold its parameters.
"""

import torch
import torch.nn.functional as F
from torch import nn

from equiscape.models.dgcnn import DGCNN, SLOPE
from equiscape.models.egnn import EGNN
from equiscape.models.pointnet import PointNet
from equiscape.ops.neighbors import knn


def gather(x, neighbors):
    """``[B, N, k, C]`` of the neighbors ``[B, N, k]`` from ``[B, N, C]``."""
    return torch.stack([cloud[index] for cloud, index in zip(x, neighbors)])


def norm(module, x):
    """Stock batch norm over all axes but the last."""
    return nn.BatchNorm1d.forward(module, x.flatten(0, -2)).view_as(x)


def edge_conv(layer, x, neighbors):
    receiver = x.unsqueeze(2).expand(-1, -1, neighbors.shape[2], -1)
    edges = torch.cat([gather(x, neighbors) - receiver, receiver], dim=-1)
    return F.leaky_relu(norm(layer.norm, layer.linear(edges)), SLOPE).max(2).values


def egnn_layer(layer, h, x, neighbors):
    difference = x.unsqueeze(2) - gather(x, neighbors)
    squared = difference.square().sum(-1, keepdim=True)
    receiver = h.unsqueeze(2).expand(-1, -1, neighbors.shape[2], -1)
    messages = layer.phi_e(torch.cat([receiver, gather(h, neighbors), squared], dim=-1))
    if layer.phi_x is not None:
        x = x + (difference * layer.phi_x(messages)).mean(2)
    return h + layer.phi_h(torch.cat([h, messages.sum(2)], dim=-1)), x


def pointnet(model, points):
    x = points
    for layer in model.layers:
        x = torch.relu(norm(layer.norm, layer.linear(x)))
    return model.head(x.max(1).values)


def dgcnn(model, points):
    x, outputs = points, []
    for layer in model.edges:
        x = edge_conv(layer, x, knn(x, model.k, include_self=True))
        outputs.append(x)
    x = model.embedding.linear(torch.cat(outputs, dim=-1))
    x = F.leaky_relu(norm(model.embedding.norm, x), SLOPE)
    return model.head(torch.cat([x.max(1).values, x.mean(1)], dim=1))


def egnn(model, points):
    neighbors = knn(points, model.k, include_self=False)
    x, h = points, model.embedding((points - points.mean(1, keepdim=True)).norm(dim=2).unsqueeze(2))
    for layer in model.layers:
        h, x = egnn_layer(layer, h, x, neighbors)
    return model.head(torch.cat([h.max(1).values, h.mean(1)], dim=1))


class Reference(nn.Module):
    """The plain form of ``model``, on its very parameters and buffers."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.plain = {PointNet: pointnet, DGCNN: dgcnn, EGNN: egnn}[type(model)]

    def forward(self, points):
        return self.plain(self.model, points)
