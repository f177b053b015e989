"""The claims of the publication (arXiv 2605.27662), for any study and optimizer.

The smallest effects worth claiming were set before any study of this project was read: a point of
accuracy, 5 % of other scores and of ranks' ratio a tenth, curvature by a quarter.
"""

from collections.abc import Iterator

import pandas as pd

from equiscape.report.claims import Claim, Sample
from equiscape.report.evidence import Evidence
from equiscape.report.pages.rank import KINDS, MEASURES

POINT = 1.0
SCORE = 1.05
CURVATURE = 1.25
RANK = 1.1
ROUGHNESS = 1.1
SPREAD = 1.25
TWICE = (1.5, 2.667)
"""Within a third of twice."""
ORDER = {"pointnet": 0, "dgcnn": 1, "egnn": 2}
"""Strength of equivariance of the publication's networks on clouds: permutations alone; with local
geometry; E(n)."""
EVERY_SEED = "`analyses: {%s: {seeds: all}}`"


def claims(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """What the publication says of Muon, asked of ``optimizer``."""
    yield from scores(evidence, optimizer)
    yield slope(evidence, optimizer)
    yield spread(evidence, optimizer)
    yield from curvature(evidence, optimizer)
    yield smoothness(evidence, optimizer)
    yield from ranks(evidence, optimizer)
    yield last_layer(evidence, optimizer)
    yield corrupted(evidence, optimizer)
    yield graphs(evidence, optimizer)


def score_claim(
    evidence: Evidence,
    optimizer: str,
    tasks: list[str],
    values: pd.Series,
    name: str,
    measure: str,
    base: str | None = None,
) -> Claim:
    """A published claim on scores of tasks with one metric: points for percent, else a ratio.

    ``base`` is an optimizer in the place of the baseline.
    """
    first = evidence.metrics.loc[tasks[0]]
    percent = first["unit"] == "%"
    return Claim(
        "published", name, measure, optimizer, "more" if first["direction"] == "max" else "less",
        POINT if percent else SCORE, "difference" if percent else "ratio", "%" if percent else "",
        evidence.samples(values, optimizer, tasks, base),
    )  # fmt: skip


def by_metric(evidence: Evidence, tasks: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Tasks that share a metric: (``higher`` or ``lower``, which is better; the metric; tasks)."""
    chosen = evidence.metrics.loc[tasks]
    percent = chosen["unit"] == "%"
    for (metric, _), group in chosen.groupby(["metric", percent], sort=False):
        better = "higher" if group["direction"].iloc[0] == "max" else "lower"
        yield better, str(metric), list(group.index)


def scores(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """The gain in test score, one claim a metric, of all tasks but those on graphs."""
    tasks = [task for task in evidence.manifest.tasks if not evidence.is_graph(task)]
    if not tasks:
        yield Claim(
            "published", "better test score", "test score at the best validation epoch", optimizer,
            "more", POINT, "difference", "%", add="a task that is not on graphs",
        )  # fmt: skip
    for better, metric, chosen in by_metric(evidence, tasks):
        values = evidence.scores(evidence.finals)
        yield score_claim(
            evidence, optimizer, chosen, values, f"{better} {metric}",
            "test score at the best validation epoch",
        )  # fmt: skip


def slope(evidence: Evidence, optimizer: str) -> Claim:
    """The gain grows with the network's equivariance, on one data set."""
    values = evidence.scores(evidence.finals)
    groups: dict[str, dict[str, str]] = {}
    for task, entry in evidence.manifest.tasks.items():
        if entry["architecture"] in ORDER and evidence.metrics.loc[task, "unit"] == "%":
            same = groups.setdefault(entry["dataset"], {})
            if task == entry["architecture"] or entry["architecture"] not in same:
                same[entry["architecture"]] = task
    networks: dict[str, str] = max(groups.values(), key=len, default={})
    found = {s.task: s for s in evidence.samples(values, optimizer, networks.values())}
    places = {task: ORDER[name] for name, task in networks.items() if task in found}
    middle = sum(places.values()) / max(len(places), 1)
    norm = sum((place - middle) ** 2 for place in places.values())
    samples = [
        Sample(task, found[task].base, found[task].other, (place - middle) / norm)
        for task, place in places.items()
        if norm
    ]
    return Claim(
        "published", "gain larger at stronger equivariance",
        "slope of the gain over PointNet, DGCNN, EGNN, per step", optimizer, "more", POINT / 2,
        "slope", "%", samples, add="tasks with two of `pointnet`, `dgcnn`, `egnn` on one data set",
    )  # fmt: skip


def spread(evidence: Evidence, optimizer: str) -> Claim:
    """The standard deviation over seeds is smaller."""
    tasks = [task for task in evidence.manifest.tasks if not evidence.is_graph(task)]
    samples = evidence.samples(evidence.scores(evidence.finals), optimizer, tasks)
    several = [sample for sample in samples if min(len(sample.base), len(sample.other)) > 1]
    return Claim(
        "published", "smaller spread over seeds", "standard deviation of the test score", optimizer,
        "less", SPREAD, "spread", samples=several,
        add="more final seeds (`final: {seeds: [...]}`) and a task that is not on graphs",
    )  # fmt: skip


def curvature(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """Largest eigenvalue and trace, from the product with the most seeds."""
    manifest = evidence.manifest
    for quantity, title in (("largest", "largest eigenvalue"), ("trace", "trace")):
        samples, measure = [], ""
        if manifest.has("hessian"):
            samples = evidence.samples(evidence.curvature[quantity], optimizer)
            measure = "analysis hessian, BatchNorm in eval mode"
        if manifest.has("sharpness") and all(len(sample.other) < 2 for sample in samples):
            cells = evidence.sharp(f"hessian_{quantity}", folded=False)
            if more := evidence.samples(cells, optimizer):
                samples, measure = more, "analysis sharpness, network as it is"
        yield Claim(
            "published", f"higher {title} of the Hessian", measure or "training loss", optimizer,
            "more", CURVATURE, "ratio", samples=samples, add=EVERY_SEED % "hessian",
        )  # fmt: skip


def smoothness(evidence: Evidence, optimizer: str) -> Claim:
    """Slices look smoother."""
    has = evidence.manifest.has("slice")
    samples = evidence.samples(evidence.roughness, optimizer) if has else []
    return Claim(
        "published", "smoother slices",
        "roughness of the loss along random lines (table slice)", optimizer, "less", ROUGHNESS,
        "ratio", samples=samples, add=EVERY_SEED % "slice",
    )  # fmt: skip


def ranks(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """Both ranks of both kinds of matrices: geometric mean over a network's layers."""
    means = evidence.ranks if evidence.manifest.has("rank") else None
    for kind, kind_title in KINDS.items():
        for measure, title in MEASURES.items():
            samples: list[Sample] = []
            if means is not None and (kind, measure) in means.index.droplevel([2, 3, 4]):
                samples = evidence.samples(means[kind, measure], optimizer)
            yield Claim(
                "published", f"higher {title} of {kind_title}", "geometric mean over layers",
                optimizer, "more", RANK, "ratio", samples=samples, add=EVERY_SEED % "rank",
            )  # fmt: skip


def last_layer(evidence: Evidence, optimizer: str) -> Claim:
    """The last representation of EGNN has about twice the effective rank."""
    tasks = [t for t, e in evidence.manifest.tasks.items() if e["architecture"] == "egnn"]
    has = tasks and evidence.manifest.has("rank")
    return Claim(
        "published", "EGNN's last layer at about twice the rank",
        f"effective rank of the last representation, {TWICE[0]:g} to {TWICE[1]:.2g} times",
        optimizer, "about", TWICE, "ratio",
        samples=evidence.samples(evidence.last_layer, optimizer, tasks) if has else [],
        add=EVERY_SEED % "rank" + ("" if tasks else " and a task with `architecture: egnn`"),
    )  # fmt: skip


def corrupted(evidence: Evidence, optimizer: str) -> Claim:
    """The gain on corrupted clouds."""
    manifest = evidence.manifest
    has = manifest.has("robustness") and manifest.robust_tasks
    return Claim(
        "published", "higher accuracy on corrupted clouds",
        "mean over corruptions and severities", optimizer, "more", POINT, "difference", "%",
        evidence.samples(evidence.corrupted, optimizer) if has else [],
        add="`analyses: {robustness: {}}` and `corruptions` of a data set of clouds",
    )  # fmt: skip


def graphs(evidence: Evidence, optimizer: str) -> Claim:
    """Nothing is gained on graphs."""
    tasks = [task for task in evidence.manifest.tasks if evidence.is_graph(task)]
    samples = evidence.samples(evidence.scores(evidence.finals), optimizer, tasks)
    return Claim(
        "published", "no gain on graphs", "ratio of test scores (errors inverted)", optimizer,
        "same", SCORE, "ratio", samples=[_better(evidence, sample) for sample in samples],
        add="a task on graphs (`architecture: gine` on `zinc` or `peptides-func`)",
    )  # fmt: skip


def _better(evidence: Evidence, sample: Sample) -> Sample:
    """The sample such that more is better: errors become their reciprocals."""
    if evidence.metrics.loc[sample.task, "direction"] == "max":
        return sample
    return Sample(sample.task, 1 / sample.base, 1 / sample.other)
