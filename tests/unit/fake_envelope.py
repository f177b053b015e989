"""What stands in, or beside, every made-up result: where it came from."""

from typing import Any

PROVENANCE = {
    "versions": {"torch": "2.0"}, "revision": "0" * 40, "device": "cpu",
    "settings_hash": "0" * 16, "seconds": 1.5,
}  # fmt: skip


def envelope(product: Any, analysis: str, seed: int | None = 1, **more: Any) -> dict[str, Any]:
    """The envelope of a result of ``analysis`` at one seed, or at the epochs in ``more``."""
    optimizers = [name for name in (product.optimizer, product.second) if name]
    single = {"task": product.task, "optimizer": product.optimizer}
    one = {**single, "seed": seed, "epoch": None, "path": "checkpoint.pt"}
    return {
        "analysis": analysis, "version": 1, "status": "finished", "tasks": [product.task],
        "optimizers": optimizers, "checkpoints": [one], "settings": {}, "units": {},
        "provenance": PROVENANCE, **(single if len(optimizers) == 1 else {}), **more,
    }  # fmt: skip
