"""The generalized Gauss-Newton matrix (Schraudolph 2002) of the training loss, by products.

``G = mean over samples of J^T (d^2 loss / d output^2) J`` is what is left of the Hessian when the
network is replaced by its linearization; ``H - G`` is the network's own curvature weighed by the
loss's slope.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from equiscape.data.base import Batch
from equiscape.landscape.objective import TrainingLoss, cast, saved_bytes
from equiscape.landscape.operators import SymmetricOperator

Products = Callable[[Tensor], Tensor]


class GaussNewton:
    """Products with G at the parameters of a :class:`TrainingLoss`, over the same samples.

    Args:
        objective: whose parameters, samples and precision are shared. Its memory allowance for
            kept graphs counts here once more.
    """

    def __init__(self, objective: TrainingLoss):
        self.objective = objective
        self._kept: list[Products] = []
        self._bytes = 0
        self.operator = SymmetricOperator(
            objective.size, self._products, objective.dtype, objective.device
        )

    def rest(self) -> SymmetricOperator:
        """``H - G``; its products count as one each, and as the two matrices' own."""
        hessian, own = self.objective.operator, self.operator
        return SymmetricOperator(own.size, lambda v: hessian(v) - own(v), own.dtype, own.device)

    def _products(self, vectors: Tensor) -> Tensor:
        o = self.objective
        total = torch.zeros(vectors.shape, dtype=torch.float64, device=o.device)
        for index, indices in enumerate(o.plan):
            if index < len(self._kept):
                product = self._kept[index]
            else:
                with saved_bytes() as saved:
                    product = self._linearize(cast(o.task.batch(o.split, indices), o.dtype))
                # Chunks are about equal: once one does not fit, none after it is kept.
                fits = self._bytes + saved["bytes"] <= o.graph_memory
                if fits and index == len(self._kept):
                    self._kept.append(product)
                    self._bytes += saved["bytes"]
            for row, vector in zip(total, vectors, strict=True):
                row += product(vector)
        return total.to(o.dtype)

    def _linearize(self, batch: Batch) -> Products:
        """This chunk's products, from a graph that is built once."""
        o = self.objective
        with torch.enable_grad():
            output = o.task.output(o.model, batch)
            # J^T u is linear in u, so its derivative along v is J v: a forward derivative from two
            # backward ones (Townsend 2017).
            u = torch.zeros_like(output, requires_grad=True)
            pulled = torch.autograd.grad(
                output, o.parameters, u, create_graph=True, allow_unused=True
            )
            logits = output.detach().requires_grad_()
            loss = o.task.dataset.objective.loss(logits, batch.target)
            (slope,) = torch.autograd.grad(
                loss * (batch.size / o.samples), logits, create_graph=True
            )
        live = [i for i, g in enumerate(pulled) if g is not None and g.requires_grad]

        def product(vector: Tensor) -> Tensor:
            if not live or not slope.requires_grad:  # a loss that is linear in the output
                return torch.zeros_like(vector)
            parts = o.split_vector(vector)
            (along,) = torch.autograd.grad(
                [pulled[i] for i in live], u, [parts[i] for i in live], retain_graph=True
            )
            (curved,) = torch.autograd.grad(slope, logits, along, retain_graph=True)
            back = torch.autograd.grad(
                output, o.parameters, curved, retain_graph=True, allow_unused=True
            )
            return o.flatten(back)

        return product
