"""Every comparison with a rival, side by side: writes results.csv and results.md beside this file.

    python benchmarks/run.py [--device cuda] [--quick] [models optim landscape molecules ...]

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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bench_ceilings
import bench_epochs
import bench_landscape
import bench_models
import bench_optim
import bench_resume
import bench_start
import pandas as pd
import torch

HERE = Path(__file__).parent
OURS = ("ours", "equiscape")
COLUMNS = ("part", "case", "rival", "quantity", "median", "low", "high", "factor")
POINTS, BATCHES = 1024, (8, 32)

# What was set out for: case (its beginning), rival, quantity, least factor; whose, if not ours.
TARGETS = (
    ("training step, dgcnn", "stock", "wall s", 3),
    ("training step, dgcnn", "stock", "memory MB", 2),
    ("training step, egnn", "stock", "wall s", 3),
    ("training step, egnn", "stock", "memory MB", 2),
    ("training step, pointnet", "stock", "wall s", 1),
    ("muon step, egnn", "torch", "wall ms", 2),
    ("muon step, gine", "torch", "wall ms", 2),
    ("muon step, pointnet", "torch", "wall ms", 1),
    ("muon step, dgcnn", "torch", "wall ms", 1),
    ("muon float32 step, egnn", "published", "wall ms", 1),
    ("muon float32 step, gine", "published", "wall ms", 1.5),
    ("muon float32 step, pointnet", "published", "wall ms", 1.5),
    ("muon float32 step, dgcnn", "published", "wall ms", 1.5),
    ("Hessian product", "a gradient", "wall ms", 1 / 2.5),
    ("Hessian product", "a gradient", "wall ms", 1 / 2.5, "graph built anew"),
    ("trace to 2 %", "plain Hutchinson", "products", 2),
    ("train, ", "PyG DataLoader", "molecules/wall s", 1),
)
# Most of a quantity, without a rival.
LIMITS = (("first step", "wall s", 4.0), ("resume point", "% of the time, every 300 s", 1.0))


def models(device: str, quick: bool) -> list[dict]:
    """A training step against stock torch-geometric layers: wall and CPU seconds, memory."""
    found = []
    for batch in BATCHES[:1] if quick else BATCHES:
        repetitions = 3 if quick or batch > BATCHES[0] else 7
        table = bench_models.rows(
            list(bench_models.NETWORKS), batch, POINTS, repetitions=repetitions, device=device
        )
        for row in table:
            case = _step(row["network"], batch)
            wall = (row["seconds"], row["quartile_1"], row["quartile_3"])
            cpu = (row["cpu_seconds"], row["cpu_quartile_1"], row["cpu_quartile_3"])
            memory = (row["memory_mb"],)
            for quantity, values in (("wall s", wall), ("CPU s", cpu), ("memory MB", memory)):
                found.append(_row("models", case, row["rival"], quantity, *values))
    return found


def _step(network: str, batch: int) -> str:
    return f"training step, {network}, {batch} x {POINTS}"


def optim(device: str, quick: bool) -> list[dict]:
    """An optimizer step against torch.optim: wall and CPU milliseconds."""
    repetitions = 7 if quick else 15
    names = tuple(bench_optim.NETWORKS)
    found = []
    for row in bench_optim.measure(names, repetitions, device):
        wall = (row["median_ms"], row["low_ms"], row["high_ms"])
        cpu = (row["cpu_ms"], row["cpu_low_ms"], row["cpu_high_ms"])
        found.append(_row("optim", row["case"], row["rival"], "wall ms", *wall))
        found.append(_row("optim", row["case"], row["rival"], "CPU ms", *cpu))
    return found


def landscape(device: str, quick: bool) -> list[dict]:
    """Hessian products, eigenvalue, trace and slice against the published methods."""
    repetitions = 3 if quick else 5
    found = []
    for row in bench_landscape.measure(tuple(bench_landscape.NETWORKS), repetitions, device):
        wall = (row["median_ms"], row["low_ms"], row["high_ms"])
        found.append(_row("landscape", row["case"], row["rival"], "wall ms", *wall))
        if row["products"] > 1:
            products = _row("landscape", row["case"], row["rival"], "products", row["products"])
            found.append(products)
    return found


def molecules(device: str, quick: bool) -> list[dict]:
    """Molecules a second against PyG's DataLoader: QM9's, where they are at hand, or generated."""
    real = HERE.parents[1] / "shared/data/qm9"
    source = ["--source", real] if real.is_dir() else []
    which = "QM9's molecules" if source else "generated molecules"
    print(f"molecules: {which}, since ../shared/data/qm9 is {'here' if source else 'absent'}")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        rounds = "3" if quick else "7"
        command = [sys.executable, HERE / "bench_molecules.py", "--rounds", rounds, "--csv", table]
        command += source
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
    return [
        _row(
            "molecules",
            f"{row['name']}, {which}",
            row["rival"],
            f"molecules/{row['clock']}",
            *(float(row[key]) for key in ("molecules_per_second", "quartile_1", "quartile_3")),
        )
        for row in rows
    ]


def epochs(device: str, quick: bool) -> list[dict]:
    """Whole epochs on CUDA, in each arithmetic, against stock layers fed by a DataLoader."""
    if not device.startswith("cuda"):
        return []
    table = bench_epochs.measure(2 if quick else 5, device)
    return [
        _row("epochs", r["case"], r["rival"], "clouds/s", r["median"], r["low"], r["high"])
        for r in table
    ]


def overheads(device: str, quick: bool) -> list[dict]:
    """Process start to first step, on the CPU; what a resume point costs."""
    found = []
    for row in bench_start.measure(3 if quick else 7):
        values = (row["median"], row["low"], row["high"])
        found.append(_row("overheads", f"first step, {row['case']}", "ours", "wall s", *values))
    with tempfile.TemporaryDirectory() as folder:
        for row in bench_resume.measure(folder):
            values = (row["median_ms"], row["low_ms"], row["high_ms"])
            found.append(_row("overheads", row["case"], "ours", "wall ms", *values))
            for seconds in bench_resume.INTERVALS:
                quantity = f"% of the time, every {seconds} s"
                share = row[f"share_{seconds}"]
                found.append(_row("overheads", row["case"], "ours", quantity, share))
    return found


PARTS: dict[str, Callable[[str, bool], list[dict]]] = {
    "models": models,
    "optim": optim,
    "landscape": landscape,
    "molecules": molecules,
    "epochs": epochs,
    "overheads": overheads,
}


def _row(part: str, case: str, rival: str, quantity: str, *values: float) -> dict:
    """Median and quartiles; a quantity that does not vary comes without quartiles."""
    rival = "ours" if rival in OURS else rival
    return dict(zip(COLUMNS, (part, case, rival, quantity, *values)))


def _is_rate(quantity: str) -> bool:
    """Whether more is better."""
    return quantity.startswith(("molecules/", "clouds/"))


def with_factors(rows: list[dict]) -> pd.DataFrame:
    """Our rows beside each rival's, which get the factor by which ours is ahead."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    key = ["case", "quantity"]
    ours = frame[frame.rival == "ours"].set_index(key)["median"]
    base = pd.Series([ours.get(tuple(k)) for k in frame[key].itertuples(index=False)], frame.index)
    ahead = frame["median"] / base
    ahead = ahead.where(~frame.quantity.map(_is_rate), 1 / ahead)
    frame["factor"] = ahead.where(frame.rival != "ours")
    return frame


def targets(frame: pd.DataFrame) -> pd.DataFrame:
    """Each target that was measured: what was wanted, what came out, and whether it is missed."""
    found = []
    for beginning, rival, quantity, wanted, *of in TARGETS:
        of = of[0] if of else "ours"
        rows = frame[frame.case.str.startswith(beginning) & (frame.quantity == quantity)]
        values = rows.set_index(["case", "rival"])["median"]
        for case in rows["case"].unique():
            ratio = values[case, rival] / values[case, of]
            what = f"{quantity}, {rival} / {of}"
            if _is_rate(quantity):
                ratio, what = 1 / ratio, f"{quantity}, {of} / {rival}"
            verdict = "met" if ratio >= wanted else f"missed, {ratio / wanted:.0%} of it"
            found.append((case, what, f"{wanted:.2g} or more", ratio, verdict))
    for beginning, quantity, most in LIMITS:
        rows = frame[frame.case.str.startswith(beginning) & (frame.quantity == quantity)]
        for row in rows.itertuples():
            verdict = "met" if row.median <= most else f"missed, {row.median / most:.2f} times it"
            found.append((row.case, quantity, f"{most:.2g} or less", row.median, verdict))
    return pd.DataFrame(found, columns=["case", "quantity", "target", "measured", "verdict"])


def works(parts: set[str], device: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Case, rival and one execution of what the page says the bounds of."""
    if "models" in parts:
        for network in bench_models.NETWORKS:
            for rival in bench_models.RIVALS:
                step = bench_models.training_step(network, rival, BATCHES[0], POINTS, device)
                yield _step(network, BATCHES[0]), rival, step
    if "landscape" in parts:
        with tempfile.TemporaryDirectory() as folder:
            for network in bench_landscape.NETWORKS:
                trained = bench_landscape.trained(network, Path(folder), device)
                case, rivals = next(iter(bench_landscape.cases(*trained, device).items()))
                for rival, product in rivals.items():
                    yield f"{case}, {network}", rival, partial(product, 0)


def bounds(frame: pd.DataFrame, ceilings: dict[str, float], device: str) -> pd.DataFrame:
    """Steps and products against what the machine's matrix products alone would take."""
    found = []
    for case, rival, work in works(set(frame["part"]), device):
        rival = "ours" if rival in OURS else rival
        rows = frame[(frame.case == case) & (frame.rival == rival)]
        rows = rows[rows.quantity.str.startswith("wall")]
        taken = rows["median"].item() / (1e3 if rows["quantity"].item() == "wall ms" else 1)
        gflop = bench_models.operations(work)
        floor = gflop / ceilings["products"]
        mostly = bench_models.shares(work, device)
        text = ", ".join(f"{operation} {share:.0%}" for operation, share in mostly)
        found.append((case, rival, gflop, floor, taken, floor / taken, text))
    names = ["case", "rival", "GFLOP", "s at the ceiling", "wall s", "share", "mostly"]
    return pd.DataFrame(found, columns=names)


def machine(device: str) -> str:
    """What the figures were measured on, without its name."""
    what = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{what}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__.split('+')[0]}, load {load:.1f} at the start"
    )


def report(frame: pd.DataFrame, where: str, ceilings: dict[str, float], device: str) -> str:
    """The page results.md."""
    command = " ".join(["python benchmarks/run.py", *sys.argv[1:]])
    lines = ["# Benchmarks", "", f"Measured by `{command}` on: {where}.", ""]
    lines += ["## Targets", "", _table(targets(frame)), ""]
    lines += [
        "## What bounds the training steps and the Hessian products",
        "",
        f"The machine's best, measured with this page: products {ceilings['products']:.0f} "
        f"GFLOP/s, SiLU {ceilings['activations']:.1f} billion values/s, "
        f"copies {ceilings['copies']:.0f} GB/s. "
        "Below: the matrix products (GFLOP), the share of the time that they would take at that "
        "rate, and the operations that most of the time is spent in. What is no product is bytes "
        "moved: EGNN's Hessian product on kept graphs reads and writes the tensors of all edges, "
        "while the gradient that it is held against keeps to the cache; built anew, it makes them "
        "first.",
        "",
        _table(bounds(frame, ceilings, device)),
        "",
    ]
    for part, table in frame.groupby("part", sort=False):
        lines += [f"## {part}", "", PARTS[part].__doc__, "", _table(table.drop(columns="part")), ""]
    return "\n".join(lines)


def _table(frame: pd.DataFrame) -> str:
    shown = frame.astype(object).where(frame.notna(), None)
    return shown.to_markdown(index=False, floatfmt=".4g", missingval="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []], metavar="part")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--page", action="store_true", help="only results.md, from results.csv")
    arguments = parser.parse_args()
    where = machine(arguments.device)
    if arguments.page:
        frame = pd.read_csv(HERE / "results.csv")
    else:
        rows: list[dict] = []
        for part in arguments.parts or PARTS:
            print(f"{part} ...", flush=True)
            rows += PARTS[part](arguments.device, arguments.quick)
        frame = with_factors(rows)
        frame.to_csv(HERE / "results.csv", index=False, float_format="%.6g")
    ceilings = bench_ceilings.measure(arguments.device)
    (HERE / "results.md").write_text(report(frame, where, ceilings, arguments.device))
    print(HERE / "results.md")


if __name__ == "__main__":
    main()
