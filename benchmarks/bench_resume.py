"""What a resume point costs: its size, the time to write it, its share of the training time.

A point is written at most every ``training.resume_seconds`` (300 by default, 60 in the demo), and
at most so often that the writing takes one percent of the time.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from timing import OURS, Row, quartiles, row, seconds, show, timed_rows

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


def measure(folder: str | Path, repetitions: int = 9) -> Iterator[Row]:
    """Rows of every network and optimizer: time to write, megabytes, percent of the time."""
    for name in NETWORKS:
        for entry in ("adamw", "muon"):
            points = ResumePoints(Path(folder) / f"{name}-{entry}", "0" * 16, seconds=0)
            state = state_of(name, entry)
            times = [seconds(lambda p=points, s=state: p.save(s)) for _ in range(repetitions)]
            case = f"resume point, {name} {entry}"
            yield from timed_rows(case, {OURS: times})
            yield row(case, OURS, "MB", (points.folder / NEWEST).stat().st_size / 2**20)
            for interval in INTERVALS:
                share = 100 * quartiles([wall for wall, _ in times])[0] / interval
                yield row(case, OURS, f"% of the time, every {interval} s", share)
            points.discard()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    with tempfile.TemporaryDirectory() as temporary:
        show(measure(parser.parse_args().folder or temporary))
