"""Small generated molecules whose properties are known in closed form: for demos and tests.

Each is a random packing of hydrogen, carbon, nitrogen and oxygen atoms. Its energy is a sum of
Morse potentials over pairs, so invariant under every rotation, reflection and permutation; its
dipole moment comes from charges that flow between near atoms of different electronegativity.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from equiscape.data import duplicates
from equiscape.data import molecules as container
from equiscape.data.molecular_graphs import pointer
from equiscape.data.molecular_splits import SizedSplits, keep_used, random_split
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.io import settings_hash
from equiscape.settings import Above, AtLeast, AtMost, Below, Positive, Seed

VERSION = 2
EMBEDDED = True
LOADER = ("node_budget",)
ELEMENTS = np.array([1, 6, 7, 8])
FREQUENCY = np.array([0.4, 0.3, 0.15, 0.15])
RADIUS = np.array([0.45, 0.8, 0.75, 0.7])  # Angstrom; a pair is at rest at the sum of its two
DEPTH = np.array([0.6, 1.6, 1.3, 1.0])  # eV; a pair has the geometric mean
STIFFNESS = 1.6  # 1/Angstrom
ELECTRONEGATIVITY = np.array([2.2, 2.55, 3.04, 3.44])  # Pauling
CHARGE = 0.3  # elementary charges that flow for a difference of one, at zero distance
FLOW = 1.2  # Angstrom, how far they do
DEBYE = 4.80320  # of one elementary charge times one Angstrom
UNITS = {"energy": "eV", "dipole": "D"}
HEADS = {"dipole": "dipole"}


ARGUMENTS = ("num_outputs", "head", "cutoff")  # what the data dictates to a network
INPUTS = ("z", "positions", "edge_index", "graph", "size", "largest")  # of its forward
SAMPLES = "molecules"
LEARNS = "numbers"
EXAMPLE = {"molecules": 30, "validation": 0.2}
TARGETS = tuple(UNITS)  # what a task chooses from
EXPECT: tuple[str, ...] = ()
OVERRIDES = ("node_budget", "loss")


@dataclass(frozen=True)
class Settings(SizedSplits):
    """Settings of a data set of this kind.

    Attributes:
        molecules: how many are generated.
        max_atoms: most atoms of one.
        cutoff: radius of the neighbor graph in Angstrom.
        validation: share of the molecules for validation, and again for the test.
        loss: of the training; the mean squared error by default.
        seed: of the molecules and the splits.
        duplicates: exact copies in two splits: ``refuse`` them, ``group`` them on one side, or
            ``keep`` them.
    """

    molecules: Annotated[int, AtLeast(3), AtMost(10_000_000)] = 1500
    max_atoms: Annotated[int, AtLeast(1), AtMost(1000)] = 9
    cutoff: Positive = 5.0
    validation: Annotated[float, Above(0), Below(0.5)] = 0.15
    loss: Literal["mse", "l1"] | None = None
    seed: Seed = 0
    duplicates: Literal["refuse", "group", "keep"] = "refuse"
    CONSTRAINTS = (
        (
            "splits or molecules * validation >= 1",
            "validation must leave at least one of {molecules} molecules",
        ),
        (
            "limit is None or splits or limit * validation >= 1",
            "limit must leave a molecule for each split",
        ),
        (
            "not splits or sum(splits) + (0 if 'test' in splits else 1) <= molecules",
            "splits must sum to at most {molecules}, the molecules that are generated",
        ),
        (
            "limit is None or limit <= molecules",
            "limit must be at most {molecules}, all there are",
        ),
    )


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Generate the prepared file; ``source`` is not used.

    Args:
        entry: ``molecules`` (1500), ``max_atoms`` (9), ``cutoff`` (5 Angstrom), ``seed``, and
            ``validation``, the share of the molecules for validation and again for test (0.15).
        output: the file to write.
    """
    count, largest = int(entry.get("molecules", 1500)), int(entry.get("max_atoms", 9))
    generator = np.random.default_rng(entry.get("seed", 0))
    counts = generator.integers(min(4, largest), largest + 1, count)
    present = np.arange(largest) < counts[:, None]
    kinds = generator.choice(len(ELEMENTS), size=present.shape, p=FREQUENCY)
    x = place(kinds, present, generator)
    held = max(1, int(count * entry.get("validation", 0.15)))
    default = {"train": count - 2 * held, "validation": held}

    cutoff = float(entry.get("cutoff", 5.0))
    node_ptr = pointer(counts)
    z, targets = ELEMENTS[kinds[present]], [energy(x, kinds, present), dipole(x, kinds, present)]
    molecules = Molecules.in_space(
        z, x[present], node_ptr, cutoff, np.stack(targets, axis=1), UNITS
    )
    molecules = keep_used(molecules, random_split(count, entry, default))
    container.write_molecules(
        output,
        molecules,
        entry.get("name", output.stem),
        settings_hash(entry),
        VERSION,
        duplicates.policy(entry),
    )


def load(path: Path, device: Any, entry: dict[str, Any]) -> MoleculeDataset:
    """The prepared file as a data set; ``entry["target"]`` is ``energy`` or ``dipole``."""
    return container.dataset(path, device, entry, heads=HEADS)


def pairs(x: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences ``x_i - x_j [n, A, A, 3]``, distances, and which pairs are two real atoms."""
    difference = x[:, :, None] - x[:, None]
    distance = np.sqrt((difference**2).sum(-1))
    both = present[:, :, None] & present[:, None] & ~np.eye(x.shape[1], dtype=bool)
    return difference, distance, both


def place(kinds: np.ndarray, present: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random positions ``[n, A, 3]`` in Angstrom, relaxed until no two atoms overlap much."""
    x = generator.normal(size=(*kinds.shape, 3)) * 1.3
    rest = RADIUS[kinds][:, :, None] + RADIUS[kinds][:, None]
    spread = generator.uniform(0.85, 1.15, size=(len(x), 1, 1))
    for _ in range(60):
        difference, distance, both = pairs(x, present)
        overlap = np.where(both, np.clip(spread * rest - distance, 0, None), 0)
        x = x + 0.3 * (overlap[..., None] * difference / np.maximum(distance, 1e-3)[..., None]).sum(
            2
        )
        x = x - 0.02 * x
    return x


def energy(x: np.ndarray, kinds: np.ndarray, present: np.ndarray) -> np.ndarray:
    """``sum over pairs of D ((1 - exp(-a (r - r0)))^2 - 1)``, in eV, ``[n]``."""
    _, distance, both = pairs(x, present)
    rest = RADIUS[kinds][:, :, None] + RADIUS[kinds][:, None]
    depth = np.sqrt(DEPTH[kinds][:, :, None] * DEPTH[kinds][:, None])
    morse = depth * ((1 - np.exp(-STIFFNESS * (distance - rest))) ** 2 - 1)
    return np.where(both, morse, 0).sum((1, 2)) / 2


def dipole(x: np.ndarray, kinds: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Norm of ``sum_i q_i x_i`` in Debye, ``[n]``, with charges that add up to zero.

    ``q_i = c sum_j (chi_j - chi_i) exp(-r_ij^2 / 2 s^2)``.
    """
    _, distance, both = pairs(x, present)
    chi = ELECTRONEGATIVITY[kinds]
    flow = np.where(both, np.exp(-(distance**2) / (2 * FLOW**2)), 0)
    charge = CHARGE * ((chi[:, None] - chi[:, :, None]) * flow).sum(2)
    return DEBYE * np.sqrt(((charge[..., None] * x).sum(1) ** 2).sum(1))
