"""What was set out for, and why a target is missed where it is.

``TARGETS`` is the one list: the page gives each its measured value and verdict, or says that it was
not measured. A ``cause`` is shown where the target is missed.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from timing import OURS


@dataclass(frozen=True)
class Target:
    """One aim.

    Attributes:
        case: beginning of the cases it is for.
        quantity: with ``{clock}`` where the clock of the part's measurement stands.
        least: the rival's value by ``of``'s (for rates the inverse) is to be at least this.
        most: the value of ``of``, divided by the rival's if there is one, is to be at most this.
        rival: whom it is against.
        of: whose value it is.
        cause: of a miss.
    """

    case: str
    quantity: str
    least: float | None = None
    most: float | None = None
    rival: str | None = None
    of: str = OURS
    cause: str = ""


def faster(
    case: str, rival: str, least: float, cause: str = "", quantity: str = "{clock} ms"
) -> Target:
    """Ours needs so many times less than the rival."""
    return Target(case, quantity, least=least, rival=rival, cause=cause)


POINTS = (
    "our loop runs the same layers; all that a point shares with the next are the neighbors of "
    "the coordinates. Where bounds-slices gives the products alone over a third of a point's time, "
    "3 times is out of reach; the rest is SiLU, and the search for neighbors among features"
)
FORWARD = (
    "as above: a point is one forward pass without gradients, of products that stock layers make "
    "too. Several points in one pass (`points together`) are slower"
)
PRODUCTS = (
    "where both need as many products, the orthogonalization and a small eigenproblem come on top"
)
TARGETS = (
    # 1 slices
    faster("slice, a point, egnn", "our network, plain loop", 3, POINTS),
    faster("slice, a point, pointnet", "our network, plain loop", 3, POINTS),
    faster("slice, a point, dgcnn", "our network, plain loop", 3, POINTS),
    faster("slice, a point, egnn", "stock layers, plain loop", 3, FORWARD),
    faster("slice, a point, pointnet", "stock layers, plain loop", 3, FORWARD),
    faster("slice, a point, dgcnn", "stock layers, plain loop", 3, FORWARD),
    # 2 Hessian products
    faster("Hessian product, ", "published", 1),
    faster("product with ", "one backward pass", 1),
    Target(
        "Hessian product, egnn",
        "{clock} ms",
        most=2.5,
        rival="a gradient",
        of="graph built anew",
        cause="of products with a row for every edge a gradient makes 8 in a layer with phi_x, a "
        "Hessian product 22 at least: 2.75 gradients, were all else free",
    ),
    Target(
        "Hessian product, egnn",
        "{clock} ms",
        most=2.5,
        rival="a gradient",
        of="edges computed again",
        cause="as above; and the second derivative is taken by autograd within each chunk of "
        "edges, whose temporaries are fresh tensors. Only where a chunk's edges do not fit a third "
        "of graph_memory",
    ),
    Target(
        "Hessian product, pointnet",
        "{clock} ms",
        most=2,
        rival="a gradient",
        of="graph built anew",
        cause="the gradient's graph costs more than a gradient, the product on it as much again",
    ),
    # 3 eigenvalues and trace
    faster("eigenvalue to 1 %, ", "power iteration", 1, PRODUCTS),
    faster("trace to 2 %", "plain Hutchinson", 2, quantity="products"),
    faster("trace to 2 %", "plain Hutchinson", 2),
    # 4 Muon
    faster("muon step, egnn", "torch", 2, "within the spread of the measurement"),
    faster(
        "muon step, gine",
        "torch",
        2,
        "its 18 square matrices of 160 rows are already one batched product; the Gram form saves "
        "nothing on a square",
    ),
    faster("muon step, pointnet", "torch", 1),
    faster("muon step, dgcnn", "torch", 1),
    faster("muon step, gotennet", "torch", 1),
    faster("muon float32 step, egnn", "published", 1),
    faster("muon float32 step, gotennet", "published", 1),
    faster(
        "muon float32 step, gine",
        "published",
        1.5,
        "18 matrices of 160 x 160: 270 products are most of the time. They are square, so "
        "the Gram form saves nothing; strips of 80 rows save nothing either",
    ),
    faster(
        "muon float32 step, pointnet",
        "published",
        1.5,
        "the products of its 512 x 1024 matrix are most of the published step, and the Gram form "
        "and strips take a third off at best; fewer products for the same error are not tried",
    ),
    faster("muon float32 step, dgcnn", "published", 1.5),
    # 5 training
    faster(
        "training step, egnn",
        "stock",
        3,
        "its products and SiLU of every edge are computed twice, so that none is kept in memory. "
        "Stock layers keep all, and much of their time is the kernel's, which hands out the pages: "
        "a process that keeps freed memory spares them that",
        "{clock} s",
    ),
    faster(
        "training step, dgcnn",
        "stock",
        3,
        "stock layers gain more from freed memory that is kept",
        "{clock} s",
    ),
    faster("training step, pointnet", "stock", 1, quantity="{clock} s"),
    faster("training step, egnn", "stock", 2, quantity="memory MB"),
    faster("training step, dgcnn", "stock", 2, quantity="memory MB"),
    faster("train, ", "PyG DataLoader", 1, quantity="molecules/{clock} s"),
    faster(
        "train, ",
        "released form",
        1,
        "both run torch-geometric's GINEConv on batches of as many nodes; what ours saves in "
        "collating is little of a step",
        "molecules/{clock} s",
    ),
    # 6 around the work
    faster("memory kept, ", "memory given back", 1, quantity="CPU ms"),
    Target("first step", "{clock} s", most=4.0),
    Target(
        "dry run, config.yaml",
        "CPU s",
        most=5.0,
        cause="imports of Snakemake and of the checks, and a job for every cell",
    ),
    Target("resume point", "% of the time, every 300 s", most=1.0),
)

# What no part here measures.
ELSEWHERE = (
    (
        "what a study spends around its work, halved",
        "overhead.md has the demo before and after: a third is gone, not half",
    ),
    ("five networks on a GPU", "`python benchmarks/run.py --device cuda epochs`; no GPU was lent"),
)


def judged(frame: pd.DataFrame, clocks: dict[str, str]) -> pd.DataFrame:
    """Each target on each case: what was wanted, what came out, the verdict, a miss's cause.

    Args:
        frame: rows with ``part, case, rival, quantity, median``.
        clocks: of each part.
    """
    found = []
    for target in TARGETS:
        rows = frame[frame.case.str.startswith(target.case)]
        wanted = [target.quantity.format(clock=clocks[part]) for part in rows.part]
        rows = rows[rows.quantity == wanted]
        rivals = {target.of} | ({target.rival} if target.rival else set())
        groups = rows.groupby("case", sort=False)
        cases = [(case, group) for case, group in groups if rivals <= set(group.rival)]
        found += [(case, *_verdict(target, group)) for case, group in cases]
        if not cases:
            quantity, aim, _ = _texts(target, target.quantity.format(clock="any"))
            found.append((target.case, quantity, aim, float("nan"), "not measured", ""))
    names = ["case", "quantity", "target", "measured", "verdict", "cause of a miss"]
    return pd.DataFrame(found, columns=names)


def is_rate(quantity: str) -> bool:
    """Whether more is better."""
    return quantity.startswith(("molecules/", "clouds/"))


def _texts(target: Target, quantity: str) -> tuple[str, str, bool]:
    """The quantity as it is compared, the aim, and whether it is turned over."""
    turned = target.most is not None or is_rate(quantity)
    if target.rival is None:
        what = quantity
    else:
        pair = (target.of, target.rival) if turned else (target.rival, target.of)
        what = f"{quantity}, {' / '.join(pair)}"
    aim = f"{target.least:g} or more" if target.most is None else f"{target.most:g} or less"
    return what, aim, turned


def _verdict(target: Target, rows: pd.DataFrame) -> tuple[str, str, float, str, str]:
    values = rows.set_index("rival")["median"]
    what, aim, turned = _texts(target, rows["quantity"].iloc[0])
    value = values[target.of]
    if target.rival is not None:
        value = value / values[target.rival] if turned else values[target.rival] / value
    goal: Any = target.least if target.most is None else target.most
    if value >= goal if target.most is None else value <= goal:
        return what, aim, value, "met", ""
    size = f"{value / goal:.1%} of it" if target.most is None else f"{value / goal:.2f} times it"
    return what, aim, value, f"missed, {size}", target.cause
