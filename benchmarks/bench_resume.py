"""What a resume point costs: its size, the time to write it, its share of the training time.

A point is written at most every ``training.resume_seconds`` (300 by default, 60 in the demo), and
at most so often that the writing takes one percent of the time.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from equiscape import models
from equiscape.optim import build_optimizer
from equiscape.training.resume import NEWEST, ResumePoints

NETWORKS = ("egnn", "pointnet", "dgcnn")
INTERVALS = (60, 300)


def state_of(name: str, entry: str) -> dict:
    """Network, optimizer and best weights, as a cell's resume point holds them."""
    model = models.build(name, {"num_outputs": 40}, {})
    optimizer, _ = build_optimizer(model, {"class": entry}, 1e-3, 0)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    best = {key: value.clone() for key, value in model.state_dict().items()}
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "weights": best}


def measure(folder: str | Path, repetitions: int = 9) -> list[dict]:
    """Rows of ``case, megabytes, median_ms, low_ms, high_ms, share_60, share_300`` (percent)."""
    rows = []
    for name in NETWORKS:
        for entry in ("adamw", "muon"):
            points = ResumePoints(Path(folder) / f"{name}-{entry}", "0" * 16, seconds=0)
            state = state_of(name, entry)
            times = []
            for _ in range(repetitions):
                start = time.perf_counter()
                points.save(state)
                times.append(time.perf_counter() - start)
            low, median, high = (1e3 * q for q in statistics.quantiles(times, n=4))
            size = (points.folder / NEWEST).stat().st_size / 2**20
            shares = {f"share_{i}": 100 * median / 1e3 / i for i in INTERVALS}
            case = f"resume point, {name} {entry}"
            quartiles = {"median_ms": median, "low_ms": low, "high_ms": high}
            rows.append({"case": case, "megabytes": size, **quartiles, **shares})
            points.discard()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    with tempfile.TemporaryDirectory() as temporary:
        for row in measure(parser.parse_args().folder or temporary):
            print(
                f"{row['case']:28} {row['megabytes']:6.1f} MiB {row['median_ms']:7.1f} ms "
                f"[{row['low_ms']:.1f}, {row['high_ms']:.1f}]  {row['share_60']:.3f} % every 60 s, "
                f"{row['share_300']:.4f} % every 300 s"
            )
