"""Small random molecules in float64, as the molecular networks take them."""

import numpy as np
import torch

from equiscape.data.molecular_graphs import pointer, radius_edges


def random_molecules(counts, seed=0, cutoff=5.0, scale=1.6):
    """``(z, positions, edge_index, graph, size, largest)`` of molecules with so many atoms each."""
    generator = np.random.default_rng(seed)
    positions = generator.normal(size=(sum(counts), 3)) * scale
    z = torch.from_numpy(generator.choice([1, 6, 7, 8], size=sum(counts)))
    return assemble(z, torch.from_numpy(positions), counts, cutoff)


def assemble(z, positions, counts, cutoff=5.0):
    """The network's inputs for given atoms: neighbor lists from the positions."""
    ptr = pointer(counts)
    local, edge_ptr = radius_edges(positions.detach().numpy(), ptr, cutoff)
    offset = np.repeat(ptr[:-1], np.diff(edge_ptr))
    graph = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    edge_index = torch.from_numpy(local.astype(np.int64) + offset)
    return z, positions, edge_index, graph, len(counts), max(counts)


def orthogonal(seed, determinant):
    """A random orthogonal matrix ``[3, 3]`` of determinant 1 or -1."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    return q * (determinant * torch.linalg.det(q).sign())
