"""Files of molecular graphs in ZINC's published layout, of the smallest size."""

import numpy as np


def write_zinc(folder, names, size=6, seed=0):
    """``size`` chains of random atoms for each of the splits ``names``, in ``folder``."""
    generator = np.random.default_rng(seed)
    for name in names:
        counts = generator.integers(3, 6, size)
        ends = [
            [(i, i + 1) for i in range(n - 1)] + [(i + 1, i) for i in range(n - 1)] for n in counts
        ]
        np.savez(
            folder / f"zinc12k_official_{name}.npz",
            atom_type=generator.integers(0, 28, counts.sum()).astype(np.int16),
            edge_index=np.array([e for graph in ends for e in graph], dtype=np.int32).T,
            bond_type=np.ones(sum(map(len, ends)), dtype=np.int8),
            y=generator.normal(size=size).astype(np.float32),
            node_ptr=np.concatenate([[0], counts.cumsum()]),
            edge_ptr=np.concatenate([[0], np.cumsum([len(e) for e in ends])]),
        )
