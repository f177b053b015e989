"""The arithmetic of a training step; evaluation and the analyses stay in float32."""

from contextlib import AbstractContextManager, nullcontext

import torch

from equiscape.runtime import matmul_precision


def matrix_products(name: str, device: torch.device) -> AbstractContextManager:
    """Let float32 matrix products on CUDA use TF32 units where ``name`` is ``tf32``."""
    return matmul_precision("high", device) if name == "tf32" else nullcontext()


def autocast(name: str, device: torch.device) -> AbstractContextManager:
    """Around one forward pass: bfloat16 products on CUDA where ``name`` is ``bf16``.

    To be left before the weights change, since it keeps converted copies of them. On the CPU
    every precision is float32.
    """
    if name != "bf16" or device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16)
