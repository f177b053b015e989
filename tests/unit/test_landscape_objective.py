"""Value, gradient and Hessian-vector products against torch.func on a tiny network."""

import pytest
import torch
from tiny_task import tiny_network, tiny_task
from torch.func import functional_call, grad, hessian

from equiscape.errors import ConfigError, EquiscapeError
from equiscape.landscape.objective import TrainingLoss


def exact(task, model, names=None):
    """Loss, gradient and dense Hessian of all samples at once, by torch.func in float64."""
    model = model.double().eval()
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    names = list(parameters) if names is None else names
    x, y = task.dataset.x.double(), task.dataset.y

    def loss(theta):
        moved, start = dict(parameters), 0
        for name in names:
            size = parameters[name].numel()
            moved[name] = theta[start : start + size].view_as(parameters[name])
            start += size
        return task.dataset.objective.loss(functional_call(model, moved, (x,)), y)

    theta = torch.cat([parameters[name].flatten() for name in names])
    return loss(theta), grad(loss)(theta), hessian(loss)(theta)


def dense(objective):
    """The matrix behind an objective's products."""
    identity = torch.eye(objective.size, dtype=objective.dtype)
    return objective.operator(identity).T


@pytest.mark.parametrize("graph_memory", [0, None], ids=["rebuilt", "kept"])
@pytest.mark.parametrize("batch_size", [5, 13])
def test_ragged_chunks_give_the_exact_hessian(batch_size, graph_memory):
    task = tiny_task()
    objective = TrainingLoss(
        task,
        tiny_network(),
        samples=None,
        batch_size=batch_size,
        seed=0,
        dtype="float64",
        graph_memory=graph_memory,
    )
    loss, gradient, matrix = exact(task, tiny_network())
    value, ours = objective.value_and_gradient()
    assert value == pytest.approx(loss.item(), rel=1e-13)
    torch.testing.assert_close(ours, gradient, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(dense(objective), matrix, rtol=1e-10, atol=1e-12)
    assert (objective.kept_bytes > 0) == (graph_memory is None)


def test_part_of_the_graphs_may_be_kept():
    task, model = tiny_task(), tiny_network()
    arguments = {"samples": None, "batch_size": 5, "seed": 0, "dtype": "float64"}
    everything = TrainingLoss(task, model, **arguments)
    everything.value_and_gradient()
    some = TrainingLoss(task, model, graph_memory=everything.kept_bytes // 2, **arguments)
    some.value_and_gradient()
    assert 0 < some.kept_bytes < everything.kept_bytes
    torch.testing.assert_close(dense(some), dense(everything), rtol=1e-12, atol=1e-14)


def test_unused_parameters_are_named_and_have_zero_rows():
    objective = TrainingLoss(
        tiny_task(), tiny_network(), samples=None, batch_size=5, seed=0, dtype="float64"
    )
    objective.value_and_gradient()
    assert objective.without_gradient == ["unused.weight", "unused.bias"]
    start = sum(p.numel() for n, p in objective.model.named_parameters() if n < "head")
    start = objective.names.index("unused.weight")
    start = sum(p.numel() for p in objective.parameters[:start])
    assert not dense(objective)[start : start + 6].any()


def test_parameters_can_be_chosen_by_pattern():
    task = tiny_task()
    objective = TrainingLoss(
        task,
        tiny_network(),
        samples=None,
        batch_size=5,
        seed=0,
        dtype="float64",
        parameters=["head.*", "first.weight"],
    )
    assert objective.names == ["first.weight", "head.weight", "head.bias"]
    matrix = exact(task, tiny_network(), objective.names)[2]
    torch.testing.assert_close(dense(objective), matrix, rtol=1e-10, atol=1e-12)


def test_float32_agrees_with_float64():
    arguments = {"samples": None, "batch_size": 5, "seed": 0}
    single = TrainingLoss(tiny_task(), tiny_network(), dtype="float32", **arguments)
    double = TrainingLoss(tiny_task(), tiny_network(), dtype="float64", **arguments)
    scale = dense(double).abs().max()
    assert (dense(single).double() - dense(double)).abs().max() < 1e-5 * scale


def test_a_head_linear_in_its_parameters_under_an_absolute_loss_is_flat():
    """Where the gradient is constant, the products are zero and nothing fails."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, 4))

        def forward(self, x):
            return x @ self.weight.T

    class Sum:
        def loss(self, output, target, label_smoothing=0.0):
            return output.mean()

    task = tiny_task(objective=Sum())
    objective = TrainingLoss(task, Linear(), samples=None, batch_size=5, seed=0)
    assert not dense(objective).any()


def test_the_model_and_its_mode_are_left_alone():
    model = tiny_network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    objective = TrainingLoss(tiny_task(), model, samples=None, batch_size=5, seed=0)
    objective.operator(torch.ones(1, objective.size))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_subset_is_fixed_by_the_seed():
    arguments = {"samples": 6, "batch_size": 4}
    first, again, other = (
        TrainingLoss(tiny_task(), tiny_network(), seed=seed, **arguments) for seed in (1, 1, 2)
    )
    assert first.samples == 6
    assert torch.equal(torch.cat(first.plan), torch.cat(again.plan))
    assert not torch.equal(torch.cat(first.plan), torch.cat(other.plan))


def test_bad_settings_name_their_key():
    arguments = {"samples": None, "batch_size": 5, "seed": 0}
    with pytest.raises(ConfigError, match=r"hessian\.dtype"):
        TrainingLoss(tiny_task(), tiny_network(), dtype="bfloat16", **arguments)
    with pytest.raises(ConfigError, match=r"hessian\.parameters"):
        TrainingLoss(tiny_task(), tiny_network(), parameters=["nothing.*"], **arguments)


def test_a_second_derivative_that_is_not_finite_is_an_error():
    class Norm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3, 4))

        def forward(self, x):
            return (x @ self.weight.T).norm(dim=1, keepdim=True).expand(-1, 3).pow(1.5)

    task = tiny_task()
    objective = TrainingLoss(task, Norm(), samples=None, batch_size=5, seed=0)
    with pytest.raises(EquiscapeError, match="not finite"):
        objective.operator(torch.ones(1, objective.size))
