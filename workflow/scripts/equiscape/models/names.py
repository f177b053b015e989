"""A child process's work: names and shapes of the parameters of networks, read from its input.

Standard input is JSON: ``networks``, task -> ``architecture``, ``arguments`` and ``settings``, and
``plugins``, folders to import from. Standard output is JSON: task -> name -> shape. A network that
cannot be built is left out.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any


def shapes(network: Mapping[str, Any]) -> dict[str, list[int]]:
    """Shape of each parameter by name; built on the meta device where the network can be."""
    import torch

    from equiscape.models import build

    given = network["architecture"], network["arguments"], network["settings"]
    try:
        with torch.device("meta"):
            model = build(*given)
    except Exception:  # it looks at its numbers
        model = build(*given)
    return {name: list(p.shape) for name, p in model.named_parameters()}


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    sys.path[1:1] = asked["plugins"]
    answer = {}
    with contextlib.redirect_stdout(sys.stderr):  # plug-ins may print
        for task, network in asked["networks"].items():
            with contextlib.suppress(Exception):
                answer[task] = shapes(network)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
