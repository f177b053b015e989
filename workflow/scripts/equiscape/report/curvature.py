"""Hessian measurements as the report reads them: whole for its pages, a row a seed for tables."""

from typing import Any

import pandas as pd

from equiscape.io import read_json
from equiscape.report.load import check, number, reading
from equiscape.report.manifest import Manifest


def load(manifest: Manifest) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The Hessian measurements of every (task, optimizer), one a measured seed that finished.

    JSON's nulls are NaN, absent measurements too;
    every eigenvalue has value, residual, low, high, converged and sign_known.
    """
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for product in manifest.analysis("hessian"):
        data = read_json(product.path, "hessian")
        task, optimizer = str(product.task), str(product.optimizer)
        found = measured.setdefault((task, optimizer), [])
        with reading(product.path):
            check(product.path, data, task, optimizer)
            if data.get("status") != "diverged":
                found.append(_measurement(data))
    return measured


def points(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer and measured seed.

    Columns: task, optimizer, seed, largest, largest_error (the residual), trace, trace_error (half
    of the 95 % interval over probes).
    """
    rows = [
        (task, optimizer, one["seed"], one["largest"]["value"], one["largest"]["residual"],
         one["trace"]["value"], (one["trace"]["high"] - one["trace"]["low"]) / 2)
        for (task, optimizer), found in load(manifest).items()
        for one in found
    ]  # fmt: skip
    columns = ["task", "optimizer", "seed", "largest", "largest_error", "trace", "trace_error"]
    return pd.DataFrame(rows, columns=columns)


def flat(data: dict[str, Any]) -> dict[str, Any]:
    """A measurement of :func:`load` in one level, without its leading eigenvalues."""
    return {
        "loss": data["loss"],
        "power_iteration": data["power_iteration"],
        "adaptive_largest": data["adaptive_largest"],
        "largest": data["largest"]["value"],
        "largest_residual": data["largest"]["residual"],
        "largest_converged": data["largest"]["converged"],
        "smallest": data["smallest"]["value"],
        "smallest_residual": data["smallest"]["residual"],
        "smallest_converged": data["smallest"]["converged"],
        "smallest_sign_known": data["smallest"]["sign_known"],
        "trace": data["trace"]["value"],
        "trace_se": data["trace"]["standard_error"],
    }


def _measurement(data: dict[str, Any]) -> dict[str, Any]:
    trace = {key: number(data["trace"].get(key)) for key in ("value", "standard_error")}
    half = 1.96 * trace["standard_error"]
    for key, default in (("low", trace["value"] - half), ("high", trace["value"] + half)):
        given = data["trace"].get(key)
        trace[key] = default if given is None else float(given)
    return {
        "seed": data["seed"],
        "split": data["data"]["split"],
        "samples": data["data"]["samples"],
        "parameters": data["parameters"],
        "method": data["method"],
        "loss": number(data.get("loss_value")),
        "largest": _eigenvalue(data["largest"]),
        "smallest": _eigenvalue(data["smallest"]),
        "power_iteration": number((data.get("power_iteration") or {}).get("value")),
        "adaptive_largest": number(
            ((data.get("adaptive") or {}).get("largest") or {}).get("value")
        ),
        "trace": trace,
        "eigenvalues": [_eigenvalue(pair) for pair in data["eigenvalues"]],
    }


def _eigenvalue(pair: dict[str, Any]) -> dict[str, Any]:
    value, residual = number(pair["value"]), number(pair["residual"])
    return {
        "value": value,
        "residual": residual,
        "low": value - residual,
        "high": value + residual,
        "converged": bool(pair.get("converged", True)) and residual <= abs(value),
        "sign_known": bool(pair.get("sign_known", residual < abs(value))),
    }
