"""Every comparison with a rival, side by side: writes results.csv and results.md beside this file.

    python benchmarks/run.py [--device cuda] [--quick] [models optim landscape molecules]

Rivals take turns within one process. Times are medians with quartiles; `factor` is how many times
less of the unit ours needs than the rival (more, for a throughput). On a shared machine the CPU
seconds tell more than the wall seconds.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench_landscape
import bench_models
import bench_optim
import pandas as pd
import torch

HERE = Path(__file__).parent
OURS = ("ours", "equiscape")
COLUMNS = ("part", "case", "rival", "quantity", "median", "low", "high", "factor")


def models(device: str, quick: bool) -> list[dict]:
    """A training step against stock torch-geometric layers: wall and CPU seconds, memory."""
    repetitions = 3 if quick else 7
    table = bench_models.rows(list(bench_models.NETWORKS), repetitions=repetitions, device=device)
    found = []
    for row in table:
        case = f"training step, {row['network']}, {row['batch']} x {row['points']}"
        wall = (row["seconds"], row["quartile_1"], row["quartile_3"])
        for quantity, values in (
            ("wall s", wall),
            ("CPU s", (row["cpu_seconds"],) * 3),
            ("memory MB", (row["memory_mb"],) * 3),
        ):
            found.append(_row("models", case, row["rival"], quantity, *values))
    return found


def optim(device: str, quick: bool) -> list[dict]:
    """An optimizer step against torch.optim: wall and CPU milliseconds."""
    repetitions = 7 if quick else 15
    names = tuple(bench_optim.NETWORKS)
    found = []
    for row in bench_optim.measure(names, repetitions, device):
        wall = (row["median_ms"], row["low_ms"], row["high_ms"])
        found.append(_row("optim", row["case"], row["rival"], "wall ms", *wall))
        found.append(_row("optim", row["case"], row["rival"], "CPU ms", *(row["cpu_ms"],) * 3))
    return found


def landscape(device: str, quick: bool) -> list[dict]:
    """Hessian products, eigenvalue, trace and slice against the published methods."""
    repetitions = 3 if quick else 5
    found = []
    for row in bench_landscape.measure(tuple(bench_landscape.NETWORKS), repetitions, device):
        wall = (row["median_ms"], row["low_ms"], row["high_ms"])
        found.append(_row("landscape", row["case"], row["rival"], "wall ms", *wall))
        if row["products"]:
            products = (row["products"],) * 3
            found.append(_row("landscape", row["case"], row["rival"], "products", *products))
    return found


def molecules(device: str, quick: bool) -> list[dict]:
    """Molecules a CPU second against PyG's DataLoader, on generated molecules."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        rounds = "3" if quick else "7"
        command = [sys.executable, HERE / "bench_molecules.py", "--rounds", rounds, "--csv", table]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
    return [
        _row(
            "molecules",
            row["name"],
            row["rival"],
            "molecules/s",
            *(float(row[key]) for key in ("molecules_per_second", "quartile_1", "quartile_3")),
        )
        for row in rows
    ]


PARTS: dict[str, Callable[[str, bool], list[dict]]] = {
    "models": models,
    "optim": optim,
    "landscape": landscape,
    "molecules": molecules,
}


def _row(part: str, case: str, rival: str, quantity: str, *values: float) -> dict:
    rival = "ours" if rival in OURS else rival
    return dict(zip(COLUMNS, (part, case, rival, quantity, *values)))


def with_factors(rows: list[dict]) -> pd.DataFrame:
    """Our rows beside each rival's, which get the factor by which ours is ahead."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    key = ["case", "quantity"]
    ours = frame[frame.rival == "ours"].set_index(key)["median"]
    base = pd.Series([ours.get(tuple(k)) for k in frame[key].itertuples(index=False)], frame.index)
    ahead = frame["median"] / base
    ahead = ahead.where(frame.quantity != "molecules/s", 1 / ahead)
    frame["factor"] = ahead.where(frame.rival != "ours")
    return frame


def machine(device: str) -> str:
    """What the figures were measured on, without its name."""
    what = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{what}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__.split('+')[0]}, load {load:.1f} at the start"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, []])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    arguments = parser.parse_args()
    where = machine(arguments.device)
    rows: list[dict] = []
    for part in arguments.parts:
        print(f"{part} ...", flush=True)
        rows += PARTS[part](arguments.device, arguments.quick)
    frame = with_factors(rows)
    frame.to_csv(HERE / "results.csv", index=False, float_format="%.6g")
    command = " ".join(["python benchmarks/run.py", *sys.argv[1:]])
    lines = ["# Benchmarks", "", f"Measured by `{command}` on: {where}.", ""]
    for part, table in frame.groupby("part", sort=False):
        lines += [f"## {part}", "", PARTS[part].__doc__, ""]
        shown = table.drop(columns="part")
        lines += [shown.to_markdown(index=False, floatfmt=".4g", missingval=""), ""]
    (HERE / "results.md").write_text("\n".join(lines))
    print(HERE / "results.md")


if __name__ == "__main__":
    main()
