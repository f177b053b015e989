"""Which checkpoints an analysis sees."""

import pytest
from fake_results import metrics_of
from tiny_task import tiny_task

from equiscape import io
from equiscape.analyses import subject as module


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"status": "finished", "epochs": 9}, [None, 0, 4, 9]),
        ({"status": "finished", "epochs": 5}, [None, 0, 4]),  # stopped early
        ({"status": "diverged", "epochs": 5}, []),
    ],
)
def test_files_without_weights_are_left_out(tmp_path, monkeypatch, metrics, expected):
    monkeypatch.setattr(module, "load_task", lambda **_: tiny_task())
    cell = tmp_path / "final/tiny_muon/seed3"
    (cell / "snapshots").mkdir(parents=True)
    io.write_json(cell / "metrics.json", metrics_of("tiny", "muon", 3, **metrics))
    paths = [cell / "checkpoint.pt", *(cell / f"snapshots/epoch{e}.pt" for e in (0, 4, 9))]
    subject = module.load_subject({}, "data.h5", "cpu", checkpoints=list(map(str, paths)),
                                  metrics=[str(cell / "metrics.json")])  # fmt: skip
    assert [c.epoch for c in subject.checkpoints] == expected


@pytest.mark.parametrize("seed", [2, 3, None])
def test_of_the_snapshots_of_several_seeds_the_representatives_stay(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(module, "load_task", lambda **_: tiny_task())
    paths, metrics = [], []
    for own in (2, 3):
        cell = tmp_path / f"final/tiny_muon/seed{own}"
        cell.mkdir(parents=True)
        written = metrics_of("tiny", "muon", own, status="finished", epochs=4)
        io.write_json(cell / "metrics.json", written)
        metrics.append(str(cell / "metrics.json"))
        paths += [str(cell / f"snapshots/epoch{epoch}.pt") for epoch in (0, 4)]
    choice = tmp_path / "choice.json"
    checkpoint = None if seed is None else f"final/tiny_muon/seed{seed}/checkpoint.pt"
    one = {"task": "tiny", "optimizer": "muon", "seed": seed, "sha256": None}
    io.write_json(choice, {**one, "checkpoint": checkpoint})
    found = module.load_subject({}, "data.h5", "cpu", choice=choice, checkpoints=paths,
                                metrics=metrics).checkpoints  # fmt: skip
    expected = [] if seed is None else [(seed, 0), (seed, 4)]
    assert [(c.seed, c.epoch) for c in found] == expected
