"""Milliseconds of an optimizer step: ours against torch.optim, on the networks of the study.

Muon: ``equiscape.optim`` builds one optimizer; the rival is ``torch.optim.Muon`` on the same
matrices and ``torch.optim.AdamW`` (fused, its fastest) on the same rest, as its documentation says
to combine them. Muon in float32: ours against the published algorithm, matrix by matrix, since
torch's always multiplies in bfloat16. AdamW: ours against ``torch.optim.AdamW`` with its defaults.
Gradients are fixed, so that only the step is timed; the rivals take turns in each repetition.
"""

from collections.abc import Callable, Iterator

import torch
from timing import Row, command, show, take_turns, timed_rows
from torch import nn

from equiscape import models
from equiscape.optim import build_optimizer
from equiscape.optim.newton_schulz import COEFFICIENTS

NETWORKS = {
    "egnn": ("egnn", {"num_outputs": 40}),
    "gine": ("gine", {"num_outputs": 10, "node_categories": [30] * 9, "edge_categories": [8] * 3}),
    "pointnet": ("pointnet", {"num_outputs": 40}),
    "dgcnn": ("dgcnn", {"num_outputs": 40}),
    "gotennet": ("gotennet", {"num_outputs": 1}),
}
ENTRIES = {
    "muon": {"class": "muon"},
    "muon float32": {"class": "muon", "settings": {"ns_dtype": "float32"}},
    "adamw": {"class": "adamw"},
}
LR, WD = 1e-3, 1e-2


def network(name: str, device: str) -> nn.Module:
    """A network with a fixed random gradient on every parameter."""
    torch.manual_seed(0)
    model = models.build(*NETWORKS[name], {}).to(device)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def ours(name: str, entry: str, device: str) -> Callable[[], None]:
    """One step of our optimizer."""
    return build_optimizer(network(name, device), ENTRIES[entry], LR, WD)[0].step


def theirs(name: str, entry: str, device: str) -> Callable[[], None]:
    """One step of the rival on the same parameters."""
    model = network(name, device)
    parameters = dict(model.named_parameters())
    if entry == "adamw":
        return torch.optim.AdamW(model.parameters(), LR, weight_decay=WD).step
    _, split = build_optimizer(model, ENTRIES[entry], LR, WD)
    chosen = {key: [parameters[n] for n in names] for key, names in split.items()}
    if entry == "muon":
        muon = torch.optim.Muon(chosen["muon"], LR, weight_decay=WD, adjust_lr_fn="match_rms_adamw")
    else:
        muon = PublishedMuon(chosen["muon"])
    adamw = torch.optim.AdamW(chosen["adamw"], LR, weight_decay=WD, fused=True)

    def step() -> None:
        muon.step()
        adamw.step()

    return step


class PublishedMuon:
    """Jordan et al.'s algorithm in float32, as they write it: one matrix after another."""

    def __init__(self, params: list[nn.Parameter]):
        self.params = params
        self.momenta = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix."""
        a, b, c = COEFFICIENTS
        for p, momentum in zip(self.params, self.momenta):
            momentum.lerp_(p.grad, 0.05)
            x = p.grad.lerp(momentum, 0.95)
            tall = x.shape[0] > x.shape[1]
            x = x.T if tall else x
            x = x / x.norm().clamp(min=1e-7)
            for _ in range(5):
                gram = x @ x.T
                polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
                x = torch.addmm(x, polynomial, x, beta=a)
            p.mul_(1 - LR * WD)
            p.add_(x.T if tall else x, alpha=-LR * 0.2 * max(p.shape) ** 0.5)


def measure(
    names: tuple[str, ...] = tuple(NETWORKS), repetitions: int = 15, device: str = "cpu"
) -> Iterator[Row]:
    """Rows of every network and entry, wall and CPU milliseconds."""
    for name in names:
        for entry in ENTRIES:
            other = "published" if entry == "muon float32" else "torch"
            steps = {"ours": ours(name, entry, device), other: theirs(name, entry, device)}
            rivals = {rival: lambda _, step=step: step() for rival, step in steps.items()}
            found = take_turns(rivals, repetitions, device, warm=2)  # which allocate the state
            yield from timed_rows(f"{entry} step, {name}", found)


if __name__ == "__main__":
    given = command(__doc__, 15, NETWORKS)
    show(measure(tuple(given.names), given.repetitions, given.device))
