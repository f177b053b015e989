"""Truncation after training: what is kept, what it does, and that nothing else moves."""

import pytest
import torch
from torch import nn
from training_case import case

from equiscape.analyses.subject import Subject
from equiscape.analyses.truncation import Settings, measure
from equiscape.errors import ConfigError
from equiscape.settings import read


class Wide(nn.Module):
    """A hidden matrix between a first and a last layer."""

    non_hidden = ("first", "head")

    def __init__(self):
        super().__init__()
        self.first, self.hidden, self.head = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, points):
        return self.head(torch.tanh(self.hidden(self.first(points).square())).mean(1))


class Only:
    """A subject's checkpoint without a file."""

    def __init__(self, model):
        self._model = model

    def model(self):
        return self._model


def found(model, **settings):
    subject = Subject(case(Wide), (Only(model),))
    return measure(subject, Settings(**settings)).data.set_index("kept")


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Wide().eval()


def test_only_hidden_matrices_lose_their_smallest_singular_values(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found(model, kept=[0.25])
    for name, p in model.named_parameters():
        if name == "hidden.weight":
            u, s, vt = torch.linalg.svd(before[name].double())
            expected = (u[:, :4] * s[:4]) @ vt[:4]
            torch.testing.assert_close(p.detach().double(), expected, rtol=0, atol=1e-6)
        else:
            assert torch.equal(p, before[name])


def test_all_of_them_is_the_network_itself(model):
    task = case(Wide)
    expected = {split: task.score(model, task.batches(split)) for split in ("train", "test")}
    rows = found(model, kept=[0.1, 1.0])  # the order does not matter: each starts from the whole
    for split, score in expected.items():
        assert rows.loc[1.0, f"{split}_loss"] == pytest.approx(score["loss"], rel=1e-6)
        assert rows.loc[1.0, f"{split}_score"] == pytest.approx(score["score"])
    assert rows.loc[0.1, "train_loss"] != pytest.approx(rows.loc[1.0, "train_loss"], rel=1e-3)


def test_a_matrix_of_that_rank_is_left_as_it_is(model):
    with torch.no_grad():
        model.hidden.weight.copy_(torch.outer(torch.randn(16), torch.randn(16)))
    rows = found(model, kept=[1.0, 0.0])
    assert rows.loc[0.0, "test_loss"] == pytest.approx(rows.loc[1.0, "test_loss"], rel=1e-5)


@pytest.mark.parametrize("kept", [[], [1.5], [-0.1]])
def test_fractions_out_of_range_are_refused(kept):
    with pytest.raises(ConfigError, match=r"analyses\.truncation\.kept"):
        read(Settings, {"kept": kept}, "analyses.truncation")
