"""The training cell: what it reports, divergence, micro-batches, odd batches, memory."""

import math

import pytest
import torch
from torch import nn
from training_case import MUON, CaseTask, Plain, case

from equiscape import io
from equiscape.errors import ConfigError
from equiscape.seeds import subseed
from equiscape.task import Predictions
from equiscape.training.cell import COLUMNS, diverged_cell, train_cell
from equiscape.training.gradient import OutOfMemory
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings

ADAM = {"name": "adam", "class": "adamw", "settings": {}}


def train(task, optimizer=MUON, lr="1e-2", wd="0", keep_weights=True, **arguments):
    return train_cell(
        task, optimizer, lr, wd, 5, task.training, keep_weights=keep_weights, **arguments
    )


def predictions(loss, score):
    """What a network with these scores on the test split of 16 might have put out."""
    return Predictions(torch.zeros(16, 3), torch.zeros(16), {"loss": loss, "score": score})


def test_a_cell_learns_and_reports():
    task = case(epochs=12)
    result = train(task)
    history, metrics = result.history, result.metrics
    assert tuple(history.columns) == (*COLUMNS[:-1], "gradient_norm", COLUMNS[-1])
    assert list(history["epoch"]) == list(range(1, 13))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert metrics["status"] == "finished"
    assert metrics["diverged_at"] is None
    assert (metrics["lr"], metrics["wd"], metrics["seed"]) == ("1e-2", "0", 5)
    assert metrics["metric"] == {"name": "accuracy", "direction": "max", "unit": "%"}
    assert metrics["steps"] == 12 * 5
    assert metrics["at"]["last"]["epoch"] == 12
    for name, split in (("best_validation", "validation"), ("best_test", "test")):
        best = metrics["at"][name]
        row = history[history["epoch"] == best["epoch"]].iloc[0]
        assert best[split]["score"] == row[f"{split}_score"] == history[f"{split}_score"].max()
    assert metrics["samples_per_second"] > 0
    assert metrics["peak_memory_mb"] > 50
    assert history["seconds"].sum() == pytest.approx(metrics["seconds"], rel=0.2)


def test_the_checkpoint_is_the_best_validation_epoch(tmp_path):
    task = case(epochs=6)
    result = train(task)
    best = result.metrics["at"]["best_validation"]
    assert result.checkpoint["epoch"] == best["epoch"]
    io.save_checkpoint(tmp_path / "checkpoint.pt", result.checkpoint)
    model = task.restore(tmp_path / "checkpoint.pt")
    for split in ("validation", "test"):
        assert task.evaluate(model, split) == best[split]
    assert train(task, keep_weights=False).checkpoint is None


def test_predictions_and_their_figures_are_of_the_best_validation_epoch(tmp_path):
    task = case(epochs=6)
    result = train(task)
    io.save_checkpoint(tmp_path / "checkpoint.pt", result.checkpoint)
    model, found = task.restore(tmp_path / "checkpoint.pt"), result.predictions
    points, labels = task.dataset.points["test"], task.dataset.labels["test"]
    with torch.no_grad():
        expected = model(points)
    torch.testing.assert_close(torch.from_numpy(found["output"]), expected, rtol=1e-5, atol=1e-6)
    assert found["target"].tolist() == labels.tolist()
    assert found["prediction"].tolist() == expected.argmax(-1).tolist()
    counted = [[int(((labels == i) & (expected.argmax(-1) == j)).sum()) for j in range(3)]
               for i in range(3)]  # fmt: skip
    assert found["confusion"].tolist() == counted
    recalls = [100 * counted[i][i] / sum(counted[i]) for i in range(3)]
    test = result.metrics["test"]
    assert test["metrics"]["accuracy"] == result.metrics["at"]["best_validation"]["test"]["score"]
    assert test["metrics"]["mean class accuracy"] == pytest.approx(sum(recalls) / 3)
    assert test["classes"] == pytest.approx(dict(zip("012", recalls)))
    io.write_npz(tmp_path / "a.npz", found)
    io.write_npz(tmp_path / "b.npz", found)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    grid = train(task, keep_weights=False)
    assert grid.predictions is None
    assert "test" not in grid.metrics


def test_predictions_are_in_the_order_of_the_split_however_it_is_batched():
    task = case(epochs=1)
    order = torch.tensor([7, 2, 15, 0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14])
    plan = task.dataset.plan
    task.dataset.plan = lambda split, size, generator=None: (
        list(order.split(3)) if split == "test" else plan(split, size, generator)
    )
    result = train(task)
    assert result.predictions["target"].tolist() == task.dataset.labels["test"].tolist()
    right = (result.predictions["prediction"] == result.predictions["target"]).mean() * 100
    assert right == result.metrics["at"]["best_validation"]["test"]["score"]


def test_a_cell_whose_whole_grid_diverged_is_written_and_not_trained():
    task = case(snapshots=[0, 2])
    result = diverged_cell(task, MUON, 7, task.training)
    metrics = result.metrics
    assert (metrics["status"], metrics["lr"], metrics["wd"]) == ("diverged", None, None)
    assert (metrics["epochs"], metrics["steps"], metrics["seed"]) == (0, 0, 7)
    assert metrics["parameters"] == sum(p.numel() for p in task.build(0).parameters())
    assert list(result.history) == list(COLUMNS)
    assert len(result.history) == 0
    assert result.checkpoint["model"] is None
    assert result.checkpoint["status"] == "diverged"
    assert sorted(result.snapshots) == [0, 2]
    assert all(len(array) == 0 for array in result.predictions.values())
    assert task.dataset.gathered == {"train": 1, "validation": 0, "test": 0}  # to look at its kind


def test_ties_of_the_score_go_to_the_lower_loss():
    task = case(epochs=3)
    found = iter([(50.0, 1.0), (50.0, 1.0), (50.0, 0.7), (50.0, 2.0), (50.0, 0.8), (50.0, 0.5)])

    def predict(model, batches):
        list(batches)
        value, loss = next(found)
        return predictions(loss, value)

    task.predict = predict
    at = train(task).metrics["at"]
    assert at["best_validation"]["epoch"] == 2  # validation losses 1.0, 0.7, 0.8
    assert at["best_test"]["epoch"] == 3  # test losses 1.0, 2.0, 0.5


def test_evaluates_every_so_many_epochs_and_at_the_end():
    history = train(case(epochs=5, evaluate_every=2)).history
    evaluated = history["epoch"][history["validation_loss"].notna()]
    assert list(evaluated) == [2, 4, 5]
    assert history["train_loss"].notna().all()


def test_the_schedule_is_stepped_with_every_step():
    history = train(case(epochs=4)).history
    fractions = [1.0] + [0.1 + 0.9 * (1 + math.cos(math.pi * step / 15)) / 2 for step in (4, 9, 14)]
    assert list(history["lr"]) == pytest.approx([1e-2 * f for f in fractions])


def test_the_same_seed_gives_the_same_cell_and_another_another():
    a, b = train(case()), train(case())
    assert a.history["train_loss"].tolist() == b.history["train_loss"].tolist()
    task = case()
    other = train_cell(task, MUON, "1e-2", "0", 6, task.training)
    assert other.history["train_loss"].tolist() != a.history["train_loss"].tolist()


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(case(epochs=1))
    assert torch.equal(torch.rand(1), expected)
    assert len({subseed(seed, p) for seed in range(50) for p in ("order", "dropout")}) == 100


class Poisoned(Plain):
    """Returns NaN from its ``at``-th training batch on."""

    at = 0

    def __init__(self):
        super().__init__()
        self.batches = 0

    def forward(self, points):
        self.batches += self.training
        output = super().forward(points)
        return output * float("nan") if 0 < self.at <= self.batches else output


@pytest.mark.parametrize("at", [1, 7, 13, 80])
def test_divergence_is_a_result_with_its_step(at):
    task = case(network=type("At", (Poisoned,), {"at": at}), train=640, epochs=3)  # 80 an epoch
    result = train(task)
    metrics = result.metrics
    epoch, step = divmod(at - 1, 80)
    assert metrics["status"] == "diverged"
    assert metrics["diverged_at"] == {"epoch": epoch + 1, "step": step + 1}
    assert metrics["steps"] == at
    assert metrics["at"]["best_validation"] is None
    assert len(result.history) == 1
    assert math.isnan(result.history["train_loss"].iloc[0])
    assert result.checkpoint["model"].keys() == Plain().state_dict().keys()


def test_a_later_divergence_keeps_the_best_epoch_before_it():
    task = case(network=type("At", (Poisoned,), {"at": 14}), train=40, epochs=4)  # 5 an epoch
    result = train(task)
    assert result.metrics["diverged_at"] == {"epoch": 3, "step": 4}
    assert result.metrics["at"]["best_validation"]["epoch"] in (1, 2)
    assert result.metrics["at"]["last"]["epoch"] == 2
    assert all(torch.isfinite(w).all() for w in result.checkpoint["model"].values())


def test_a_huge_learning_rate_diverges():
    result = train(case(), {"class": "sgd", "settings": {}}, lr="1e12", wd="1e12")
    assert result.metrics["status"] == "diverged"


def test_a_non_finite_validation_loss_diverges():
    task = case(epochs=3)
    task.predict = lambda model, batches: predictions(math.inf, math.nan)
    metrics = train(task).metrics
    assert metrics["diverged_at"] == {"epoch": 1, "step": 5}
    assert metrics["at"]["last"] is None


def gradients(task, indices, **settings):
    """The parameters' gradients after one step without clipping."""
    merged = Settings.read({**task.training, "clip_norm": None, **settings})
    trainer = Trainer(task, ADAM, 1e-3, 0, 5, merged)
    trainer.model.train()
    loss, size = trainer.gradient(indices)
    return [p.grad for p in trainer.model.parameters()], loss, size


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7, 100])
def test_micro_batches_accumulate_to_the_same_gradient(micro_batch):
    indices = torch.arange(11)
    whole, loss, size = gradients(case(network=Plain), indices, batch_size=11)
    parts, loss_parts, size_parts = gradients(
        case(network=Plain), indices, batch_size=11, micro_batch=micro_batch
    )
    assert size == size_parts == 11
    torch.testing.assert_close(loss_parts, loss, rtol=1e-6, atol=1e-6)
    for a, b in zip(parts, whole):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_micro_batches_are_refused_with_batch_statistics():
    with pytest.raises(ConfigError, match=r"training\.micro_batch.*batch statistics.*batch_size"):
        train(case(micro_batch=4))
    assert train(case(epochs=1, micro_batch=8)).metrics["status"] == "finished"  # no piece smaller


class Hungry(Plain):
    """Fits three samples at once."""

    def forward(self, points):
        if self.training and len(points) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return super().forward(points)


def test_out_of_memory_goes_on_in_micro_batches(caplog):
    hungry, plain = case(network=Hungry, epochs=2), case(network=Plain, epochs=2)
    found, expected = train(hungry), train(plain)
    assert "training.micro_batch: 2" in caplog.text
    for name in found.checkpoint["model"]:
        torch.testing.assert_close(
            found.checkpoint["model"][name],
            expected.checkpoint["model"][name],
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_that_cannot_be_split_names_the_keys(error):
    def fail(*_):
        raise error

    task = case()
    task.loss = fail
    with pytest.raises(OutOfMemory, match=r"training\.batch_size.*training\.micro_batch"):
        train(task)
    task = case(network=Plain)
    task.loss = fail
    with pytest.raises(OutOfMemory, match=r"training\.batch_size.*training\.micro_batch"):
        train(task)


def test_out_of_memory_in_an_evaluation_names_the_key():
    task = case()

    def predict(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore")

    task.predict = predict
    with pytest.raises(OutOfMemory, match=r"20.00 GiB\); .*training\.batch_size \(8\)\.$"):
        train(task)


def test_another_error_is_not_taken_for_one_of_memory():
    task = case()
    task.loss = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(task)


class Norms:
    """A recorder of the gradient before and after clipping."""

    def __init__(self):
        self.found = {"backward": [], "update": []}

    def after_backward(self, trainer):
        self.found["backward"].append([p.grad.clone() for p in trainer.model.parameters()])

    def after_update(self, trainer):
        self.found["update"].append([p.grad.clone() for p in trainer.model.parameters()])

    def row(self):
        return {}


def test_clipping_bounds_the_gradient():
    task = case(network=Plain, epochs=1, clip_norm=1e-3)
    trainer = Trainer(task, ADAM, 1e-3, 0, 5, Settings.read(task.training))
    trainer.recorders = {"norms": Norms()}
    trainer.run_epoch()
    found = trainer.recorders["norms"].found
    assert len(found["backward"]) == len(found["update"]) == 6
    for free, clipped in zip(found["backward"], found["update"]):
        norm = torch.stack([g.norm() for g in free]).norm()
        for a, b in zip(clipped, free):
            torch.testing.assert_close(a, b * (1e-3 / norm), rtol=1e-4, atol=1e-9)


def test_label_smoothing_raises_the_training_loss_alone():
    task = case(network=Plain)
    smooth, plain = (gradients(task, torch.arange(8), label_smoothing=s)[1] for s in (0.3, 0.0))
    model = task.build(5)
    batch = task.batch("train", torch.arange(8))
    # -(1-s) log p_y - s mean_c log p_c, on an unaugmented batch
    logs = model(*batch.inputs).log_softmax(-1)
    expected = -(0.7 * logs[torch.arange(8), batch.target] + 0.3 * logs.mean(-1)).mean()
    torch.testing.assert_close(task.loss(model, batch, 0.3), expected)
    assert smooth != plain


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"epochs": 0}, "training.epochs"),
        ({"batch_size": 2.5}, "training.batch_size"),
        ({"micro_batch": -1}, "training.micro_batch"),
        ({"clip_norm": 0}, "training.clip_norm"),
        ({"label_smoothing": 1}, "training.label_smoothing"),
        ({"precision": "bf15"}, "training.precision"),
        ({"compile": "yes"}, "training.compile"),
        ({"schedule": {"name": "cosine", "warmup": 1}}, "training.schedule"),
        ({"augmentation": {"scales": [1, 2]}}, "training.augmentation"),
    ],
)
def test_a_bad_setting_is_named(changes, word):
    with pytest.raises(ConfigError, match=word):
        train(case(**changes))
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        Settings.read({})


def test_a_bar_on_a_terminal_and_lines_in_the_log(capfd, caplog):
    with caplog.at_level("INFO", "equiscape.training"):
        train(case(epochs=2), progress=True)
    assert "10/10" in capfd.readouterr().err
    lines = [r.getMessage() for r in caplog.records]
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1 of 2", "epoch 2 of 2"]
    caplog.clear()
    train(case(epochs=1))
    assert capfd.readouterr().err == ""


def test_modules_that_keep_no_running_mean_are_no_batch_statistics():
    class Norm(CaseTask):
        def build(self, seed):
            return nn.Sequential(nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 3))

    task = case()
    task.__class__ = Norm
    entry = Settings.read({**task.training, "micro_batch": 2})
    assert Trainer(task, ADAM, 1e-3, 0, 0, entry).gradient.statistics == []
