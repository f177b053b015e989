"""Draw docs/figures/union-of-planes.png: two equivariant planes and a network that changes sides.

    make figure-planes

The group C2 swaps two inputs, and two hidden units look at them: W is a 2 x 2 matrix. The regular
representation (the units swap too) makes W = [[a, b], [b, a]], two trivial ones (the units stay)
W = [[a, a], [b, b]]. Both planes and the line in which they meet lie in a space of three
dimensions, where the picture is. The path is of a real training, its fourth coordinate left out.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from equiscape.data import teacher
from equiscape.optim import build_optimizer
from equiscape.report import style
from equiscape.task import Task
from equiscape.training.plane import PlaneKeeper

AXES = np.array([[1, 1, 1, 1], [1, -1, -1, 1], [1, 1, -1, -1]]) / 2  # common, regular, trivial
REGULAR, TRIVIAL = "#0072B2", "#E69F00"
STEPS, SEED, TEACHER = 2000, 2, 3


def trained(folder: Path) -> tuple[np.ndarray, int]:
    """Coordinates ``[steps, 3]`` of a student's W, and the step of its release."""
    entry = {"group": "C2", "inputs": "natural", "hidden": ["regular"], "samples": 60}
    entry |= {"scale": 3.0, "seed": TEACHER}
    teacher.prepare(entry, None, folder / "data.h5")
    dataset = teacher.load(folder / "data.h5", torch.device("cpu"), entry)
    model = {"hidden": ["2 trivial"], "mode": "relaxed", "release": 0.5, "noise": 0.05}
    task = Task("picture", {"architecture": "permutation-mlp", "model": model}, dataset, "cpu")
    network = task.build(SEED)
    optimizer, _ = build_optimizer(network, {"class": "adamw"}, 1e-2, 0)
    keeper = PlaneKeeper(network, [SEED], STEPS, torch.device("cpu"))
    batch = task.batch("train", torch.arange(dataset.size("train")))
    path = []
    for step in range(STEPS):
        path.append(AXES @ network.layers[0].weight.detach().flatten().numpy())
        optimizer.zero_grad()
        task.loss(network, batch).backward()
        optimizer.step()
        keeper.after_update(keeper.own(network)[0], step + 1, optimizer)
    print(f"loss {task.evaluate(network, 'train')['loss']:.1e} of the target's variance")
    return np.array(path), keeper.end


def draw(path: np.ndarray, release: int) -> plt.Figure:
    """The two planes, their common line, and the path before and after the release."""
    style.use()
    figure = plt.figure(figsize=(5.2, 3.4))
    axis = figure.add_subplot(projection="3d", computed_zorder=False)
    reach = 1.15 * np.abs(path).max()
    grid = np.linspace(-reach, reach, 2)
    u, v = np.meshgrid(grid, grid)
    zero = np.zeros_like(u)
    axis.plot_surface(u, v, zero, color=REGULAR, alpha=0.22, linewidth=0, zorder=1)
    axis.plot_surface(u, zero, v, color=TRIVIAL, alpha=0.25, linewidth=0, zorder=1)
    axis.plot([-reach, reach], [0, 0], [0, 0], color="black", linewidth=1.2, zorder=2)
    held, free = path[: release + 1], path[release:]
    axis.plot(*held.T, color="#8A5A00", linewidth=1.6, zorder=3)
    axis.plot(*free.T, color="#B01030", linewidth=1.6, zorder=4)
    axis.plot(*path[0], "o", color="#8A5A00", markersize=4, zorder=5)
    axis.plot(*path[release], "s", color="#B01030", markersize=4.5, zorder=5)
    axis.plot(*path[-1], "*", color="#B01030", markersize=10, zorder=5)
    for place, said, color, where in (
        ((-0.95 * reach, 0, 0.8 * reach), "the units stay: [[a, a], [b, b]]", "#8A5A00", "left"),
        ((0, -1.12 * reach, 0), "the units swap: [[a, b], [b, a]]", REGULAR, "right"),
        ((-0.8 * reach, 0, -0.16 * reach), "on both", "black", "left"),
        (path[0] + [0, 0, 0.06 * reach], "1 start", "#8A5A00", "center"),
        (path[release] + [0, 0, 0.07 * reach], "2 stuck, released", "#B01030", "center"),
        (path[-1] + [0.06 * reach, 0, -0.04 * reach], "3 solved: the teacher", "#B01030", "left"),
    ):
        axis.text(*place, said, color=color, ha=where, fontsize=7.5, zorder=6)
    axis.set(xticks=[], yticks=[], zticks=[])
    axis.set_axis_off()
    axis.set_box_aspect((1, 1, 0.8), zoom=1.12)
    axis.set_position((0, -0.25, 1, 1.5))  # its margins are empty
    axis.view_init(elev=24, azim=-58)
    return figure


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        figure = draw(*trained(Path(folder)))
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    figure.savefig(target / "union-of-planes.png", dpi=200)
