"""Made-up results of the analysis hessian."""

import numpy as np
from fake_envelope import envelope

from equiscape.io import write_json


def write(product, manifest, gain, rng) -> None:
    seed = 1 if product.seed is None else product.seed
    values = (25 * 4.0**gain * rng.uniform(0.7, 1.4)) * 0.7 ** np.arange(10)
    pairs = [{"value": v, "residual": 1e-3 * v, "converged": True} for v in values]
    pairs[-1] |= {"residual": 1.5 * values[-1], "converged": False, "sign_known": False}
    smallest = -0.08 * values[0] if gain == 0 or product.task != "dgcnn" else 0.02
    data = {
        **envelope(product, "hessian", seed), "seed": seed, "method": "lanczos",
        "data": {"split": "train", "samples": 512}, "batch_norm": "eval", "dropout": "off",
        "loss": "cross entropy", "dtype": "float32", "tolerance": 1e-3, "parameters": 12345,
        "parameters_without_gradient": [], "gradient_norm": 0.1,
        "loss_value": 0.5, "eigenvalues": pairs, "largest": pairs[0],
        "smallest": {"value": smallest, "residual": 0.01, "converged": True},
        "power_iteration": {"value": values[0], "residual": 0.1, "converged": True},
        "trace": {"value": values.sum() * 4, "standard_error": values.sum() * 0.2, "probes": 20,
                  "method": "hutchinson", "products": 20},
        "density": _density(values), "products_total": 100, "seconds": 1.5,
    }  # fmt: skip
    write_json(product.path, data)


def _density(values) -> dict:
    """A peak at zero with a band, and the leading eigenvalues without one."""
    width = values[0] / 100
    points = np.linspace(-5 * width, values[0] + 3 * width, 201)
    bump = np.exp(-((points[:, None] - [0.0, *values]) ** 2) / (2 * width**2))
    bulk, leading = bump[:, 0] / width / 2.507, bump[:, 1:].sum(1) / width / 2.507 / 12345
    return {"points": points.tolist(), "density": (bulk + leading).tolist(), "width": width,
            "density_standard_error": (0.1 * bulk).tolist(), "method": "quadrature", "probes": 4,
            "steps": 20, "products": 80, "exact": values.tolist(), "nodes": [[0.0]],
            "weights": [[1.0]], "thresholds": [0.0], "share": [0.5],
            "share_standard_error": [0.01]}  # fmt: skip
