"""What this machine can do at best, on operands of the shapes that the networks have.

Matrix products as in EGNN's messages (a cloud's edges by 64 channels), SiLU on the same block, and
a copy of a tensor too large for the caches. Seconds are the best of several repetitions, since a
ceiling is what nothing disturbs.
"""

import argparse
import time
from collections.abc import Callable

import torch

EDGES, CHANNELS = 1024 * 20, 64  # of a cloud: points x k
LARGE = 2**26  # values of the copied tensor, 256 MB


def best(work: Callable[[], object], device: str, repetitions: int = 15) -> float:
    """Least seconds of ``work()``."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(device: str) -> dict[str, float]:
    """``products`` (GFLOP/s), ``activations`` (billion values/s) and ``copies`` (GB/s)."""
    block = torch.randn(EDGES, CHANNELS, device=device)
    weight = torch.randn(CHANNELS, CHANNELS, device=device)
    out, large = torch.empty_like(block), torch.zeros(LARGE, device=device)
    to = torch.zeros_like(large)
    return {
        "products": 2e-9
        * EDGES
        * CHANNELS**2
        / best(lambda: torch.mm(block, weight, out=out), device),
        "activations": 1e-9
        * block.numel()
        / best(lambda: torch.ops.aten.silu.out(block, out=out), device),
        "copies": 1e-9 * 8 * LARGE / best(lambda: to.copy_(large), device),  # read and written
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    print(measure(parser.parse_args().device))
