"""Validation and test scores of the trivial predictor for every molecular task of a study.

    python benchmarks/trivial.py config/real-molecules.yaml

Run it where the study was run: it reads the prepared data. The predictor is the mean of the
training targets (regression) or each label's share of them (several labels), whatever the input.
"""

import sys
from pathlib import Path

import torch
import yaml

from equiscape.task import Task, load_task


def targets(task: Task, split: str) -> torch.Tensor:
    """All targets of a split."""
    return torch.cat([batch.target for batch in task.batches(split, 1000)])


def main(config: str) -> None:
    study = yaml.safe_load(Path(config).read_text())
    for name, entry in study["tasks"].items():
        dataset = entry["dataset"]
        prepared = Path(study["pathvars"]["resources"]) / f"prepared/{dataset}.h5"
        settings = {**entry, "training": {}}
        source = study["datasets"][dataset]
        task = load_task(name, settings, dataset, source, prepared, torch.device("cpu"))
        mean = targets(task, "train").double().mean(0)
        scores = []
        for split in ("validation", "test"):
            truth = targets(task, split)
            if task.metric.direction == "min":  # in the target's own unit
                scores.append((truth.double() - mean).abs().mean().item())
            else:
                output = mean.logit().expand(len(truth), -1)
                scores.append(task.dataset.objective.score(output, truth))
        unit = f"{task.metric.name} {task.metric.unit}".strip()
        print(f"{name}: validation {scores[0]:.4g}, test {scores[1]:.4g} ({unit})")


if __name__ == "__main__":
    main(*sys.argv[1:])
