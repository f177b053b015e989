"""A task of a few samples and a network of a few parameters, for tests against exact algebra."""

import torch
from torch import nn

from equiscape.data.base import Batch, Dataset
from equiscape.objectives import Classification
from equiscape.task import Task


class TinyClouds(Dataset):
    """``n`` Gaussian vectors of ``features`` numbers with random labels."""

    name = "tiny"

    def __init__(self, n: int = 13, features: int = 4, classes: int = 3, objective=None):
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(n, features, generator=generator)
        self.y = torch.randint(classes, (n,), generator=generator)
        self.objective = objective or Classification()

    def size(self, split):
        return len(self.x)

    def gather(self, split, indices):
        return Batch((self.x[indices],), self.y[indices], len(indices))


class TinyNetwork(nn.Module):
    """Everything that can go wrong: batch norm, dropout, a head, parameters without gradient."""

    def __init__(self, features: int = 4, hidden: int = 5, classes: int = 3):
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.dropout(torch.tanh(self.norm(self.first(x)))))

    def representations(self):
        return {"first": self.first, "head": self.head}


class Linear(nn.Module):
    """A linear network, whose mean squared error is a quadratic of its weights."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)

    def forward(self, x):
        return self.body(x)

    def representations(self):
        return {"body": self.body}


def tiny_task(**arguments) -> Task:
    """A :class:`Task` over :class:`TinyClouds`."""
    return Task("tiny", {"architecture": "none"}, TinyClouds(**arguments), torch.device("cpu"))


def tiny_network(seed: int = 0, **arguments) -> TinyNetwork:
    """A network whose batch-norm statistics are not the trivial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TinyNetwork(**arguments)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.norm.running_mean.normal_(0, 0.3)
        model.norm.running_var.uniform_(0.5, 2)
    return model
