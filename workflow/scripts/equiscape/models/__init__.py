"""Architectures: one file each, all with the same small interface.

A network is built from keyword settings whose defaults are the published ones and has

* ``forward(*batch.inputs) -> [size, num_outputs]``;
* ``non_hidden``: names of the submodules that are its first or last layers;
* ``neighborhood`` (networks on clouds that start from nearest neighbors): ``(k, include_self)``, as
  :func:`equiscape.ops.neighbors.knn` takes them. ``forward`` then takes the neighbors
  ``[size, points, k]`` after the points, and searches them where they are not given;
* ``normals``, an optional keyword setting of networks on clouds: data with ``normals: true`` give
  it as True, and ``[size, points, 6]``;
* ``keep_edges``, an optional keyword of ``forward``: keep what has a row for every edge instead of
  computing it again in the backward pass;
* ``representations()``: ordered names and modules; a module's output (its first element if it is a
  tuple) is that layer's representation, ``[size, points, channels]``, ``[nodes, channels]`` or
  ``[size, channels]``, and the last entry is the network's own pooling;
* ``symmetries()``: which transformations of the parameters leave the function unchanged, see
  :mod:`equiscape.symmetries`;
* only 2-D ``nn.Linear`` weights as learned matrices, and second derivatives everywhere.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from equiscape.errors import ConfigError
from equiscape.registry import lookup
from equiscape.settings import declaration_of, read

if TYPE_CHECKING:  # every Snakemake process reads the registry, and torch takes seconds to import
    from torch import nn

ARCHITECTURES = {
    "egnn": "equiscape.models.egnn:EGNN",
    "pointnet": "equiscape.models.pointnet:PointNet",
    "dgcnn": "equiscape.models.dgcnn:DGCNN",
    "gotennet": "equiscape.models.gotennet:GotenNet",
    "gine": "equiscape.models.gine:GINE",
    "permutation-mlp": "equiscape.models.permutation_mlp:PermutationMLP",
}


def build(
    architecture: str,
    arguments: Mapping[str, Any],
    settings: Mapping[str, Any],
    key: str = "model",
) -> "nn.Module":
    """The network ``architecture``, freshly initialized on the CPU.

    Args:
        architecture: a name in :data:`ARCHITECTURES`, or ``"module:Class"``.
        arguments: what the data dictates, such as ``{"num_outputs": 40}``.
        settings: the task's ``model`` map; every key is a keyword of the architecture.
        key: of that map in the configuration.

    Raises:
        ConfigError: an unknown architecture or setting, a setting out of range, or data of a kind
            that the architecture does not read.
    """
    network = lookup(ARCHITECTURES, architecture, "architecture")
    declaration = declaration_of(network)
    strange = set() if declaration.open else set(arguments) - set(declaration.settings)
    if strange:
        raise ConfigError(
            f"architecture: {architecture} does not read this data set, "
            f"which comes with {', '.join(sorted(strange))}; choose another of the two."
        )
    return read(network, settings, key, **arguments)
