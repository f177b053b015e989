"""The same questions where the publication did not look.

At equal loss and cost, by sharpness that symmetries of the parameters do not change, with ranks
held, and on the way between solutions.
"""

from collections.abc import Iterator
from dataclasses import replace

from equiscape.report.claims import Claim
from equiscape.report.claims_published import CURVATURE, POINT, by_metric, score_claim
from equiscape.report.evidence import Evidence
from equiscape.report.pages import interventions
from equiscape.report.pages.sharpness import INVARIANT
from equiscape.report.pages.sharpness import MEASURES as SHARPNESS
from equiscape.report.titles import optimizer_title

FOLDED = ("hessian_largest", "hessian_trace", *INVARIANT, "spectral_step", "spectral_relative")
BARRIER = 0.1
"""Nats of loss."""


def claims(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """The claims beyond the publication, of ``optimizer``."""
    yield from matched(evidence, optimizer)
    yield from sharp(evidence, optimizer)
    yield from held(evidence, optimizer)
    yield connected(evidence, optimizer)


def matched(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """The gain at equal training loss, at equal wall time, at equal products."""
    tasks = list(evidence.manifest.tasks)
    found = (
        ("equal training loss", evidence.at_equal_loss,
         "test score of the first epoch at the lowest training loss that every cell came to", ""),
        ("equal wall time", evidence.at_budget("seconds"),
         "test score within the time that every cell used up", ""),
        ("equal products", evidence.at_budget("products"),
         "test score within the products that every cell used up",
         "`training: {recorders: [products]}`"),
    )  # fmt: skip
    for where, values, measure, add in found:
        if not len(values):
            yield Claim(
                "beyond", f"better test score at {where}", measure, optimizer, "more", POINT,
                "difference", "%", add=add,
            )  # fmt: skip
            continue
        for better, metric, chosen in by_metric(evidence, tasks):
            name = f"{better} {metric} at {where}"
            claim = score_claim(evidence, optimizer, chosen, values, name, measure)
            yield replace(claim, section="beyond")


def sharp(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """Sharper by what the function fixes; and what folding makes of the published ratio."""
    has = evidence.manifest.has("sharpness")
    add = "`analyses: {sharpness: {}}`"
    for measure in FOLDED:
        samples = evidence.samples(evidence.sharp(measure, True), optimizer) if has else []
        title = "relative orthogonalized steps" if measure == "spectral_relative" else (
            SHARPNESS[measure])  # fmt: skip
        yield Claim(
            "beyond", f"sharper, folded: {title}", "analysis sharpness, batch norms folded",
            optimizer, "more", CURVATURE, "ratio", samples=samples, add=add,
        )  # fmt: skip
    for quantity in ("largest", "trace"):
        values = evidence.folding(f"hessian_{quantity}") if has else None
        what = SHARPNESS[f"hessian_{quantity}"]
        yield Claim(
            "beyond", f"folding lowers the ratio: {what}",
            "ratio of the folded networks by the ratio as they are; networks with batch norms",
            optimizer, "less", CURVATURE, "ratio",
            samples=[] if values is None else evidence.samples(values, optimizer),
            add="`analyses: {sharpness: {raw: true, folded: true}}` and a network with batch norms",
        )  # fmt: skip


def held(evidence: Evidence, optimizer: str) -> Iterator[Claim]:
    """Whether ranks that are held to another optimizer's move the score against the placebo."""
    manifest = evidence.manifest
    pairs = interventions.placebos(manifest)
    if not pairs:
        yield Claim(
            "beyond", "held ranks move the score", "arms held to other ranks against placebos",
            optimizer, "more", POINT, "difference", "%",
            add="arms with `constraints: [{name: spectrum-match, ranks_of: ...}]` and their "
            "placebos, as in config/interventions.yaml",
        )  # fmt: skip
        return
    if optimizer not in pairs:
        return
    placebo = pairs[optimizer]
    values = evidence.scores(evidence.finals)
    for _, metric, tasks in by_metric(evidence, list(manifest.tasks)):
        name = f"held ranks leave the {metric} as it is"
        measure = f"test score against its placebo, {optimizer_title(placebo)}"
        claim = score_claim(evidence, optimizer, tasks, values, name, measure, placebo)
        yield replace(claim, section="beyond", expects="same")


def connected(evidence: Evidence, optimizer: str) -> Claim:
    """Whether a barrier between optimizers is higher than between two seeds of one."""
    has = evidence.manifest.has("connectivity")
    return Claim(
        "beyond", "barrier to the other above that to a seed",
        "barrier of the test loss on aligned lines: unlike optimizers less two seeds of one",
        optimizer, "more", BARRIER, "difference", "loss",
        evidence.barriers(optimizer) if has else [], tested=False,
        add="`analyses: {connectivity: {}}` and two final seeds",
    )  # fmt: skip
