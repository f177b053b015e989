"""Full precision inside a step that otherwise computes in half precision or TF32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from equiscape.runtime import matmul_precision


@contextmanager
def full_products(device: torch.device) -> Iterator[None]:
    """Within the block, products of float32 are computed in float32: not in bfloat16 or TF32.

    For differences of large terms, such as squared distances and variances. Compiled code uses
    TF32 where the training step does, since that switch cannot be changed within a graph.
    """
    with torch.autocast(device.type, enabled=False):
        if torch.compiler.is_compiling():
            yield
            return
        with matmul_precision("highest", device):
            yield


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 if it is in half precision, else ``x`` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
