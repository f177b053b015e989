"""Rivals take turns in one process, on two clocks; every result is a row of one form.

A row has ``case, rival, quantity, median, low, high``: median and quartiles over the repetitions,
or one value that does not vary. On a shared machine CPU seconds (user and kernel, of all threads)
tell what a program needs; wall seconds tell what the others left it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch

Row = dict[str, Any]
OURS = "ours"
CLOCKS = ("wall", "CPU")
NUMBERS = ("median", "low", "high")


def row(case: str, rival: str, quantity: str, *values: float) -> Row:
    """Median and quartiles; a quantity that does not vary comes without quartiles."""
    return dict(zip(("case", "rival", "quantity", *NUMBERS), (case, rival, quantity, *values)))


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(numbers) == 1:
        return (numbers[0],) * 3
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return median, low, high


def seconds(work: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Wall and CPU seconds of ``work()``."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def synchronize(device: str) -> None:
    """Wait for a CUDA device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def take_turns(
    rivals: dict[str, Callable[[int], object]], repetitions: int, device: str = "cpu", warm: int = 1
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every rival in each repetition, whose number it is called with.

    The first ``warm`` rounds are not counted. Every other round is in reverse order, so that none
    always follows the same one.
    """
    found: dict[str, list[tuple[float, float]]] = {rival: [] for rival in rivals}
    for repetition in range(-warm, repetitions):
        order = list(rivals.items())
        for rival, work in order[:: -1 if repetition % 2 else 1]:
            times = seconds(partial(work, max(repetition, 0)), device)
            if repetition >= 0:
                found[rival].append(times)
    return found


def timed_rows(
    case: str,
    found: dict[str, list[tuple[float, float]]],
    unit: str = "ms",
    scale: float = 1.0,
) -> list[Row]:
    """For each rival and clock a row, in seconds or milliseconds times ``scale``."""
    scale *= {"s": 1.0, "ms": 1e3}[unit]
    return [
        row(case, rival, f"{clock} {unit}", *quartiles([scale * value for value in values]))
        for rival, times in found.items()
        for clock, values in zip(CLOCKS, zip(*times))
    ]


def rate_rows(case: str, rates: dict[str, list[tuple[float, float]]], what: str) -> list[Row]:
    """For each rival and clock a row of so many ``what`` a second."""
    return [
        row(case, rival, f"{what}/{clock} s", *quartiles(values))
        for rival, found in rates.items()
        for clock, values in zip(CLOCKS, zip(*found))
    ]


def command(
    description: str, repetitions: int, networks: Iterable[str], device: bool = True
) -> argparse.Namespace:
    """The arguments of a script about some networks; its threads are set."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    if device:
        parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=repetitions)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("names", nargs="*", default=list(networks), metavar="network")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def show(rows: Iterable[Row]) -> None:
    """Print rows as they are."""
    for found in rows:
        spread = ""
        if "low" in found:
            spread = f"[{found['low']:.4g}, {found['high']:.4g}]"
        what = f"{found['case']:34} {found['rival']:18}"
        print(f"{what} {found['median']:12.4g} {found['quantity']} {spread}", flush=True)
