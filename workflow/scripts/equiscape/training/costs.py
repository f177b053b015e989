"""Time and memory that a cell takes, over all the processes it is trained in."""

import resource
import time
from collections.abc import Mapping
from typing import Any

import torch


class Costs:
    """Counts from its construction on."""

    def __init__(self, device: torch.device):
        self.device = device
        self._seconds_before = self._peak_before = 0.0  # in processes before this one
        self._start = time.monotonic()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return self._seconds_before + time.monotonic() - self._start

    @property
    def peak_memory(self) -> float:
        """Largest memory in MB: allocated on the GPU, or resident on the host."""
        if self.device.type == "cuda":
            now = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return max(self._peak_before, now)

    def state(self) -> dict[str, float]:
        """For a resume point."""
        return {"seconds": self.seconds, "peak_memory_mb": self.peak_memory}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self._seconds_before, self._peak_before = state["seconds"], state["peak_memory_mb"]
