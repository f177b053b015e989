"""Work in chunks that fit a cache, whether a tensor allows it, and what a device waits for."""

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor


def transformed(x: Tensor) -> bool:
    """Whether a ``torch.func`` transform, ``is_grads_batched`` or ``torch.compile`` works on x.

    They compose with plain tensor operations only, so every fast operation falls back to those.
    """
    return (
        torch.compiler.is_compiling()
        or is_functorch_wrapped_tensor(x)
        or is_legacy_batchedtensor(x)
    )


def chunk_size(device: torch.device) -> int:
    """Values that a temporary of a chunk may hold: a CPU cache's worth, more on a GPU."""
    return 2**20 if device.type == "cpu" else 2**26


def node_counts(graph: Tensor, size: int) -> Tensor:
    """``[size]`` nodes of each graph, from the graph ``[nodes]`` of each node.

    Unlike ``bincount`` on CUDA, it does not make the host wait for the result.
    """
    return graph.new_zeros(size).index_add_(0, graph, torch.ones_like(graph))


def upload(indices: Tensor, device: torch.device) -> Tensor:
    """CPU ``indices`` on the device, without the host waiting for what the device has to do."""
    if device.type == "cuda":
        indices = indices.pin_memory()
    return indices.to(device, non_blocking=True)


def differentiated(*tensors: Tensor) -> bool:
    """Whether a gradient may be asked for: where not, a maximum needs no place."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def first_maximum(values: Tensor, scratch: Tensor) -> Tensor:
    """``values.max(1).indices`` of ``[a, b, c]``: the first of equal maxima, or the first NaN.

    On a CPU three vectorized passes are twice as fast as torch's one, which tracks indices; they
    overwrite ``scratch``, which has the same shape and may be ``values`` itself.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.max(1).indices
    count = values.shape[1]
    rank = torch.arange(count, 0, -1, dtype=values.dtype).view(1, -1, 1)
    maximum = values.amax(1, keepdim=True)
    if maximum.isnan().any():  # which equals nothing
        return values.max(1).indices
    torch.eq(values, maximum, out=scratch)
    return (count - scratch.mul_(rank).amax(1)).long()
