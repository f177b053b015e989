"""Messages along the edges of clouds, summed over neighbors a few nodes at a time.

No edge joins two clouds. So a batch is worked through a part of a cloud (or a few small clouds) at
a time: the tensors with a row for every edge, the widest of the network by far, stay in a
cache-sized workspace and are computed again in the backward pass instead of being kept. The
derivatives are exact to the second order, and of any order inside ``torch.func`` transforms, which
take the plain form.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from equiscape.ops.chunks import chunk_size, transformed
from equiscape.ops.neighbors import Graph, ordered_by_source

silu, silu_backward = torch.ops.aten.silu, torch.ops.aten.silu_backward


def plain_messages(
    sources: Tensor,
    receiver: Tensor,
    sender: Tensor,
    x: Tensor,
    distance: Tensor,
    weight: Tensor,
    bias: Tensor,
    *phi_x: Tensor,
) -> tuple[Tensor, ...]:
    """What :func:`message_sums` computes, as the equations read.

    ``sources [nodes, k]`` numbers the nodes j that send to each node i.
    """
    difference = x.unsqueeze(1) - x[sources]
    squared = difference.square().sum(-1, keepdim=True)
    first = F.silu(receiver.unsqueeze(1) + sender[sources] + squared * distance)
    message = F.silu(F.linear(first, weight, bias))
    if not phi_x:
        return (message.sum(1),)
    weight_x, bias_x, gate = phi_x
    update = difference * F.linear(F.silu(F.linear(message, weight_x, bias_x)), gate)
    return message.sum(1), update.mean(1)


def message_sums(
    graph: Graph,
    receiver: Tensor,
    sender: Tensor,
    x: Tensor,
    distance: Tensor,
    weight: Tensor,
    bias: Tensor,
    *phi_x: Tensor,
    keep_edges: bool = False,
) -> tuple[Tensor, ...]:
    """``sum_j m_ij`` and, given phi_x, ``mean_j (x_i - x_j) phi_x(m_ij)`` over the neighbors j::

        m_ij = silu(weight silu(receiver_i + sender_j + distance |x_i - x_j|^2) + bias)
        phi_x(m) = gate silu(weight_x m + bias_x)

    Args:
        graph: the neighbors of every node.
        receiver: ``[nodes, H]``, the first layer's share of the receiving node, with its bias.
        sender: ``[nodes, H]``, its share of the sending node.
        x: ``[nodes, 3]`` coordinates.
        distance: ``[H]``, its column of the squared distance.
        weight: ``[H, H]`` of the second layer.
        bias: ``[H]`` of the second layer.
        phi_x: nothing, or ``weight_x [H, H]``, ``bias_x [H]`` and ``gate [1, H]``.
        keep_edges: keep what has a row for every edge instead of computing it again. For many
            second derivatives of one forward pass: each takes half the time, at many times the
            memory.

    Returns:
        ``[nodes, H]`` and, given phi_x, ``[nodes, 3]``.
    """
    tensors = (receiver, sender, x, distance, weight, bias, *phi_x)
    if keep_edges or transformed(graph.sources) or any(transformed(t) for t in tensors):
        return plain_messages(graph.sources, *tensors)
    with torch.autocast(x.device.type, enabled=False):
        widest = torch.promote_types(weight.dtype, x.dtype)
        return _Messages.apply(graph, *(tensor.to(widest) for tensor in tensors))


@dataclass
class _Chunk:
    """Receiving nodes within a cloud, or those of some clouds, and all that may send to them."""

    nodes: slice  # that receive
    senders: slice  # all nodes of their clouds
    sources: Tensor  # [nodes, k], numbered from the first sender

    @cached_property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """The chunk's edges ordered by sender; where each sender's run starts."""
        return ordered_by_source(self.sources, self.senders.stop - self.senders.start)

    def receive(self, edges: Tensor) -> Tensor:
        """The sum ``[senders, C]`` of ``[edges, C]`` over the edges that each node sends along."""
        order, starts = self.by_source
        return F.embedding_bag(order, edges, starts, mode="sum")


def _chunks(graph: Graph, width: int, whole_clouds: bool = False) -> list[_Chunk]:
    """The graph in chunks, kept with it since every layer and both passes take the same."""
    size = chunk_size(graph.sources.device) // 2  # of one of the tensors that are in use together
    return graph.kept((size, width, whole_clouds), lambda: _cut(graph, size, width, whole_clouds))


def _cut(graph: Graph, size: int, width: int, whole_clouds: bool) -> list[_Chunk]:
    edges = graph.points * graph.k
    clouds = max(1, size // (edges * width))
    parts = 1 if whole_clouds or clouds > 1 else min(graph.points, -(-edges * width // size))
    chunks = []
    for first in range(0, graph.clouds, clouds):
        last = min(first + clouds, graph.clouds)
        senders = slice(first * graph.points, last * graph.points)
        step = -(-(senders.stop - senders.start) // parts)
        for start in range(senders.start, senders.stop, step):
            nodes = slice(start, min(start + step, senders.stop))
            chunks.append(_Chunk(nodes, senders, graph.sources[nodes] - senders.start))
    return chunks


class _Workspace:
    """Buffers ``[edges, H]`` that all chunks of a pass share, since fresh memory costs time."""

    def __init__(self, count: int, chunks: list[_Chunk], like: Tensor):
        rows = max(chunk.sources.numel() for chunk in chunks)
        self.buffers = [like.new_empty(rows, like.shape[1]) for _ in range(count)]

    def of(self, chunk: _Chunk) -> list[Tensor]:
        """The buffers, cut to the chunk's edges."""
        return [buffer[: chunk.sources.numel()] for buffer in self.buffers]


def _differences(x: Tensor, chunk: _Chunk) -> tuple[Tensor, Tensor]:
    """``x_i - x_j`` as ``[edges, 3]`` and its square as ``[edges, 1]``."""
    difference = (x[chunk.nodes].unsqueeze(1) - x[chunk.senders][chunk.sources]).flatten(0, 1)
    return difference, difference.square().sum(1, keepdim=True)


def _first_layer(
    receiver: Tensor,
    sender: Tensor,
    squared: Tensor,
    distance: Tensor,
    chunk: _Chunk,
    out: Tensor,
) -> None:
    """``receiver_i + sender_j + distance |x_i - x_j|^2`` into ``out [edges, H]``."""
    torch.index_select(sender[chunk.senders], 0, chunk.sources.flatten(), out=out)
    out.view(*chunk.sources.shape, -1).add_(receiver[chunk.nodes].unsqueeze(1))
    out.addcmul_(squared, distance)


class _Messages(Function):
    """The forward pass; what it keeps has a row for every node, never one for every edge."""

    @staticmethod
    def forward(ctx, graph, receiver, sender, x, distance, weight, bias, *phi_x):
        ctx.graph = graph
        ctx.save_for_backward(receiver, sender, x, distance, weight, bias, *phi_x)
        sums = torch.empty_like(receiver)
        update = torch.empty_like(x)
        chunks = _chunks(graph, receiver.shape[1])
        workspace = _Workspace(2, chunks, receiver)
        for chunk in chunks:
            u, v = workspace.of(chunk)
            shape = (*chunk.sources.shape, -1)
            difference, squared = _differences(x, chunk)
            _first_layer(receiver, sender, squared, distance, chunk, out=u)
            torch.mm(silu(u, out=u), weight.T, out=v).add_(bias)
            silu(v, out=v)
            torch.sum(v.view(shape), 1, out=sums[chunk.nodes])
            if phi_x:
                weight_x, bias_x, gate = phi_x
                torch.mm(v, weight_x.T, out=u).add_(bias_x)
                phi = silu(u, out=u) @ gate.T
                torch.mean((difference * phi).view(shape), 1, out=update[chunk.nodes])
        return (sums, update) if phi_x else (sums,)

    @staticmethod
    def backward(ctx, *gradients):
        tensors = ctx.saved_tensors
        if any(transformed(gradient) for gradient in gradients):  # a batch of them
            with torch.enable_grad():
                leaves = [tensor.detach().requires_grad_() for tensor in tensors]
                sums = plain_messages(ctx.graph.sources, *leaves)
            return None, *torch.autograd.grad(sums, leaves, gradients)
        moved = ctx.needs_input_grad[3]
        return None, *_Gradient.apply(ctx.graph, moved, len(gradients), *gradients, *tensors)


class _Gradient(Function):
    """The backward pass, by hand; its own derivative comes from autograd, a chunk at a time."""

    @staticmethod
    def forward(ctx, graph, moved, outputs, *tensors):
        ctx.graph, ctx.outputs = graph, outputs
        ctx.save_for_backward(*tensors)
        (g_sum, *g_move), inputs = tensors[:outputs], tensors[outputs:]
        receiver, sender, x, distance, weight, bias, *phi_x = inputs
        to_receiver, to_sender = torch.empty_like(receiver), torch.zeros_like(sender)
        to_x = torch.zeros_like(x) if moved else None
        to_weights = [torch.zeros_like(tensor) for tensor in inputs[3:]]
        to_distance, to_weight, to_bias, *to_phi_x = to_weights
        chunks = _chunks(graph, receiver.shape[1])
        workspace = _Workspace(6 if phi_x else 4, chunks, receiver)
        ones = receiver.new_ones(1, max(chunk.sources.numel() for chunk in chunks))
        for chunk in chunks:
            u, first, v, message, *more = workspace.of(chunk)
            nodes, shape = chunk.nodes, (*chunk.sources.shape, -1)
            one = ones[:, : len(u)]
            difference, squared = _differences(x, chunk)
            _first_layer(receiver, sender, squared, distance, chunk, out=u)
            silu(u, out=first)
            torch.mm(first, weight.T, out=v).add_(bias)
            if phi_x:
                silu(v, out=message)
                weight_x, bias_x, gate = phi_x
                y, hidden = more
                torch.mm(message, weight_x.T, out=y).add_(bias_x)
                silu(y, out=hidden)
                phi = hidden @ gate.T
                g_edge = (g_move[0][nodes] / graph.k).unsqueeze(1).expand(shape[0], graph.k, 3)
                g_phi = (difference.view(shape) * g_edge).sum(2).view(-1, 1)
                to_phi_x[2].addmm_(g_phi.T, hidden)
                g_y = silu_backward(torch.mul(g_phi, gate, out=hidden), y, grad_input=hidden)
                to_phi_x[0].addmm_(g_y.T, message)
                to_phi_x[1].add_((one @ g_y)[0])
                g_message = torch.mm(g_y, weight_x, out=y)
                g_message.view(shape).add_(g_sum[nodes].unsqueeze(1))
            else:
                g_message = message
                g_message.view(shape).copy_(g_sum[nodes].unsqueeze(1))
            g_v = silu_backward(g_message, v, grad_input=g_message)
            to_weight.addmm_(g_v.T, first)
            to_bias.add_((one @ g_v)[0])
            g_u = silu_backward(torch.mm(g_v, weight, out=v), u, grad_input=v)
            torch.sum(g_u.view(shape), 1, out=to_receiver[nodes])
            to_sender[chunk.senders] += chunk.receive(g_u)
            to_distance.add_((squared.T @ g_u)[0])
            if moved:
                g_difference = difference * (2 * (g_u @ distance.unsqueeze(1)))
                if phi_x:
                    g_difference.view(shape).addcmul_(phi.view(shape), g_edge)
                to_x[nodes] += g_difference.view(shape).sum(1)
                to_x[chunk.senders] -= chunk.receive(g_difference)
        return to_receiver, to_sender, to_x, *to_weights

    @staticmethod
    @once_differentiable
    def backward(ctx, *directions):
        graph, saved = ctx.graph, ctx.saved_tensors
        per_node = ctx.outputs + 3  # gradients of the outputs, then receiver, sender and x
        parts = []
        for chunk in _chunks(graph, saved[0].shape[1], whole_clouds=True):
            cut = [t[chunk.nodes] if i < per_node else t for i, t in enumerate(saved)]
            leaves = [tensor.detach().requires_grad_() for tensor in cut]
            gradients, inputs = leaves[: ctx.outputs], leaves[ctx.outputs :]
            along = [
                d[chunk.nodes] if i < 3 and d is not None else d for i, d in enumerate(directions)
            ]
            with torch.enable_grad():
                outputs = plain_messages(chunk.sources, *inputs)
                pulled = torch.autograd.grad(outputs, inputs, gradients, create_graph=True)
                given = [i for i, direction in enumerate(along) if direction is not None]
                part = torch.autograd.grad(
                    [pulled[i] for i in given],
                    leaves,
                    [along[i] for i in given],
                    materialize_grads=True,
                )
            parts.append(part)
        totals = [
            torch.cat(part) if i < per_node else sum(part) for i, part in enumerate(zip(*parts))
        ]
        return None, None, None, *totals
