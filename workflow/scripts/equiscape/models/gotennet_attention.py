"""The attention of GotenNet (Aykent & Xia, ICLR 2025), see :mod:`equiscape.models.gotennet`."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape.models.molecular_pairs import Pairs, degree_rows


def weighted_softmax(scores: Tensor, weights: Tensor) -> Tensor:
    """``weights exp(scores)`` normalized over the third axis of ``[B, n, n, heads]``.

    Rows whose weights are all zero, which padding has, give zeros.
    """
    # The maximum cancels between numerator and denominator: it needs no derivative.
    maximum = scores.detach().masked_fill(weights == 0, -math.inf).amax(2, keepdim=True)
    shifted = scores - maximum.clamp(min=torch.finfo(scores.dtype).min)
    exponential = weights * shifted.masked_fill(weights == 0, 0.0).exp()
    total = exponential.sum(2, keepdim=True)
    return exponential / total.masked_fill(total == 0, 1.0)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


class Attention(nn.Module):
    """Geometry-aware tensor attention, GATA (paper, equations 4 to 7)::

        alpha = softmax_j(sum_c q_i k_j SiLU(W_re t_ij)) / sqrt(d)              in every head
        o     = alpha gamma_v(h_j) + (W_rs t_ij) gamma_s(h_j) fc = (o_s, o_d^l, o_t^l)
        h_i   += sum_j o_s
        X_i^l += sum_j (o_d^l r_ij^l + o_t^l X_j^l)

    The two terms of o are summed over j apart: alpha is one number a head, so the first term
    (:meth:`attended`) is ordinary attention over ``gamma_v(h_j)`` and its product with ``X_j``.

    ``smooth`` weighs the terms of the softmax by the envelope, so that an atom crossing the cutoff
    comes and goes gradually; the paper's softmax gives it a finite weight at once.

    The equations name no heads. Here each head is the equations on its own d / heads channels, so
    alpha of a head weighs its channels in every part of gamma_v. The released code cuts gamma_v
    into heads before it is split into parts, so that a head weighs (1 + 2 L) d / heads channels in
    a row: with ``concatenated``. With one head the two are the same.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        degrees: int,
        dropout: float,
        smooth: bool,
        concatenated: bool = False,
    ):
        super().__init__()
        self.heads, self.degrees, self.smooth = heads, degrees, smooth
        self.concatenated = concatenated and heads > 1
        self.parts = 1 + 2 * degrees
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.edge_key = nn.Linear(hidden, hidden)
        self.value = perceptron(hidden, hidden, self.parts * hidden)
        self.spatial = perceptron(hidden, hidden, self.parts * hidden)
        self.edge_filter = nn.Linear(hidden, self.parts * hidden)
        self.dropout = nn.Dropout(dropout)

    def coefficients(self, h: Tensor, t: Tensor, pairs: Pairs) -> Tensor:
        """The attention coefficients alpha, ``[B, heads, n, n]``."""
        query, key = pairs.pad(self.query(h)), pairs.pad(self.key(h))
        product = F.silu(self.edge_key(t)) * query.unsqueeze(2) * key.unsqueeze(1)
        scores = product.unflatten(-1, (self.heads, -1)).sum(-1)
        weights = pairs.envelope if self.smooth else pairs.neighbors
        alpha = weighted_softmax(scores, weights.unsqueeze(-1))
        return self.dropout(alpha / math.sqrt(h.shape[1])).permute(0, 3, 1, 2)

    def parts_of(self, features: Tensor, X: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Split ``gamma(h) [N, (1 + 2 L) d]`` into what h and X receive.

        Returns the scalar and directional parts ``[N, 1 + L, d]``, and the tensor parts times
        ``X``, ``[N, M, d]``.
        """
        parts = features.unflatten(-1, (self.parts, -1))
        first, tensor = parts.split([1 + self.degrees, self.degrees], dim=1)
        return first, None if X is None else spread(tensor, self.degrees) * X

    def attended(self, h: Tensor, X: Tensor | None, alpha: Tensor, pairs: Pairs) -> Tensor:
        """``sum_j alpha gamma_v(h_j)`` in its parts: of h, then of X, ``[N, 1 + M, d]``."""
        if self.concatenated:
            return self.attended_in_runs(h, X, alpha, pairs)
        first, tensor = self.parts_of(self.value(h), X)
        values = first[:, :1] if tensor is None else torch.cat([first[:, :1], tensor], dim=1)
        # [B, n, rows, heads, d / heads] to one matrix for each molecule and head
        values = pairs.pad(values).unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4)
        summed = (alpha @ values.flatten(3)).unflatten(-1, values.shape[3:])
        directed = []
        for degree, rows in enumerate(degree_rows(self.degrees), start=1):
            value = pairs.pad(first[:, degree]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            turned = alpha.unsqueeze(2) * pairs.direction[..., rows].permute(0, 3, 1, 2).unsqueeze(
                1
            )
            directed.append((turned.flatten(2, 3) @ value).unflatten(2, turned.shape[2:4]))
        moved = torch.cat(directed, dim=2).transpose(2, 3)
        if tensor is not None:
            moved = moved + summed[:, :, :, 1:]
        return pairs.flat(
            torch.cat([summed[:, :, :, :1], moved], dim=3).permute(0, 2, 3, 1, 4)
        ).flatten(-2)

    def attended_in_runs(self, h: Tensor, X: Tensor | None, alpha: Tensor, pairs: Pairs) -> Tensor:
        """:meth:`attended` where heads cut the parts' concatenation: one sum a run of channels."""
        d = h.shape[1]
        size = self.parts * d // self.heads
        first, tensor = self.parts_of(self.value(h), X)
        rows = degree_rows(self.degrees)
        sums = []
        for part in range(self.parts if X is not None else 1 + self.degrees):
            runs = []
            for head in range(part * d // size, ((part + 1) * d - 1) // size + 1):
                run = slice(max(0, head * size - part * d), min(d, (head + 1) * size - part * d))
                weights = alpha[:, head].unsqueeze(-1)
                if tensor is not None and part > self.degrees:
                    values = pairs.pad(tensor[:, rows[part - self.degrees - 1], run])
                    runs.append(torch.einsum("bijo,bjmc->bimc", weights, values))
                    continue
                values = pairs.pad(first[:, part, run])
                if part:
                    weights = weights * pairs.direction[..., rows[part - 1]]
                runs.append(torch.einsum("bijm,bjc->bimc", weights, values))
            sums.append(torch.cat(runs, dim=-1))
        moved = torch.cat(sums[1 : 1 + self.degrees], dim=2)
        if X is not None:
            moved = moved + torch.cat(sums[1 + self.degrees :], dim=2)
        return pairs.flat(torch.cat([sums[0], moved], dim=2))

    def filtered(self, h: Tensor, X: Tensor | None, t: Tensor, pairs: Pairs) -> Tensor:
        """``sum_j (W_rs t_ij) gamma_s(h_j) fc`` in its parts, ``[N, 1 + M, d]``."""
        first: Any
        filters: Any
        first, tensor = self.parts_of(self.spatial(h), X)
        parts = 1 + self.degrees if X is None else self.parts
        width = parts * h.shape[1]  # while X is zero, the filters of its part are not needed
        filters = F.linear(t, self.edge_filter.weight[:width], self.edge_filter.bias[:width])
        filters = filters.chunk(parts, dim=-1)
        first = pairs.pad(first).unsqueeze(1).unbind(-2)
        envelope = pairs.envelope.unsqueeze(2)
        sums = [envelope @ (filters[0] * first[0])]
        turned = pairs.direction.transpose(2, 3) * envelope
        for degree, rows in enumerate(degree_rows(self.degrees), start=1):
            message = turned[:, :, rows] @ (filters[degree] * first[degree])
            if tensor is not None:
                # one product [n, n] @ [n, 2 l + 1] for each molecule and channel
                weights = filters[self.degrees + degree].permute(0, 3, 1, 2)
                values = pairs.pad(tensor[:, rows]).permute(0, 3, 1, 2)
                message = message + ((weights * pairs.envelope.unsqueeze(1)) @ values).permute(
                    0, 2, 3, 1
                )
            sums.append(message)
        return pairs.flat(torch.cat(sums, dim=2))

    def forward(
        self, h: Tensor, X: Tensor | None, t: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """New ``h [N, d]`` and ``X [N, M, d]``; ``X`` is None where it is still zero."""
        alpha = self.coefficients(h, t, pairs)
        output = self.attended(h, X, alpha, pairs) + self.filtered(h, X, t, pairs)
        return h + output[:, 0], output[:, 1:] if X is None else X + output[:, 1:]


def spread(parts: Tensor, degrees: int) -> Tensor:
    """One row for each degree, ``[N, L, d]``, repeated for all its components: ``[N, M, d]``."""
    rows = [
        part.unsqueeze(1).expand(-1, 2 * degree + 1, -1)
        for degree, part in zip(range(1, degrees + 1), parts.unbind(1))
    ]
    return torch.cat(rows, dim=1)
