"""CenterSGD against torch.optim.SGD: dense steps, sampled steps, micro-batches, missing gradients, saved state."""

import io
from typing import Any

import pytest
import torch

from partial_fc import CenterSGD, CosFace, PartialFC, RowGradient, center_state, load_center_state
from partial_fc.center_sgd import TILE_ROWS

pytestmark = pytest.mark.numerics

HYPERPARAMETERS = [(0.9, 5e-4), (0.0, 5e-4), (0.9, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize(("momentum", "weight_decay"), HYPERPARAMETERS)
@pytest.mark.parametrize("rows", [20, 2 * TILE_ROWS + 77])
def test_a_full_step_is_torch_sgd(rows: int, momentum: float, weight_decay: float) -> None:
    """Fed the same gradients: momentum, weight decay and a changing learning rate, to the last bit."""
    head = PartialFC(rows, 7, seed=5)
    centers = head.centers.detach().clone().requires_grad_()
    ours = CenterSGD(head, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    theirs = torch.optim.SGD([centers], lr=0.1, momentum=momentum, weight_decay=weight_decay)
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5) for optimizer in (ours, theirs)]
    for step in range(8):
        values = torch.randn(rows, 7, generator=torch.Generator().manual_seed(step))
        centers.grad = values.clone()
        head.add_gradient(RowGradient(None, values))
        for optimizer, schedule in zip((ours, theirs), schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    assert torch.equal(head.centers.detach(), centers.detach())


@pytest.mark.parametrize(("momentum", "weight_decay"), HYPERPARAMETERS)
@pytest.mark.parametrize("count", [23, TILE_ROWS + 300])
def test_a_sampled_step_is_torch_sgd_on_those_rows(count: int, momentum: float, weight_decay: float) -> None:
    """torch.optim.SGD over one parameter per row, where a row without a gradient is left alone, momentum included."""
    head = PartialFC(count, 5, seed=5)
    rows = [row.clone().requires_grad_() for row in head.centers.detach()]
    ours = CenterSGD(head, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    theirs = torch.optim.SGD(rows, lr=0.1, momentum=momentum, weight_decay=weight_decay, foreach=False)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        size = count - 9 - step
        picked = torch.randperm(count, generator=generator)[:size].sort().values
        values = torch.randn(size, 5, generator=generator)
        for row, value in zip(picked.tolist(), values, strict=True):
            rows[row].grad = value.clone()
        head.add_gradient(RowGradient(picked, values))
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(head.centers.detach(), torch.stack(rows).detach())


def test_micro_batches_add_up_on_the_union_of_their_rows() -> None:
    values = torch.arange(1.0, 13.0).view(6, 2)
    parts = [
        RowGradient(torch.tensor([0, 3]), values[:2].clone()),
        RowGradient(torch.tensor([0, 3]), values[2:4].clone()),
        RowGradient(torch.tensor([1, 3]), values[4:6].clone()),
        RowGradient(None, torch.ones(5, 2)),
        RowGradient(torch.tensor([4]), values[:1].clone()),
        RowGradient(None, torch.ones(5, 2)),
    ]
    dense = [part.dense(5) for part in parts]
    head = PartialFC(5, 2)
    for index, part in enumerate(parts):
        head.add_gradient(part)
        assert head.row_gradient is not None
        touched = head.row_gradient.rows
        assert (None if touched is None else touched.tolist()) == [[0, 3], [0, 3], [0, 1, 3], None, None, None][index]
        torch.testing.assert_close(head.center_gradient(), torch.stack(dense[: index + 1]).sum(0))
    small = RowGradient(torch.tensor([0]), torch.ones(1, 2)).plus(RowGradient(torch.tensor([1]), torch.ones(1, 2)), 2)
    assert small.rows is None, "a union of all rows is a full gradient"


def test_accumulated_gradients_are_those_of_the_sum() -> None:
    """Backward several times before a step, sampled: one draw for the step, plus each micro-batch's positives."""
    head = PartialFC(200, 6, CosFace(scale=8.0), sample_rate=0.3)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 6, generator=generator), torch.randint(200, (4,), generator=generator)) for _ in "abc"]
    alone = []
    for x, y in batches:
        (head(x, y) * 0.5).backward()
        alone.append(head.center_gradient())
        head.zero_grad()
    for x, y in batches:
        (head(x, y) * 0.5).backward()
    torch.testing.assert_close(head.center_gradient(), torch.stack(alone).sum(0))
    assert head.row_gradient is not None
    assert 60 <= len(head.row_gradient.values) <= 60 + 2 * 4


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("through", ["optimizer", "head"])
def test_zero_grad_forgets(through: str, set_to_none: bool) -> None:
    head = PartialFC(9, 4, sample_rate=0.5)
    optimizer = CenterSGD(head)
    head(torch.randn(3, 4), torch.tensor([0, 1, 8])).backward()
    assert head.center_gradient() is not None
    assert head.centers.grad is None
    (optimizer if through == "optimizer" else head).zero_grad(set_to_none=set_to_none)
    assert head.row_gradient is None
    assert head.center_gradient() is None


def test_a_step_without_a_gradient_does_nothing() -> None:
    head = PartialFC(9, 4)
    optimizer = CenterSGD(head)
    before = head.centers.detach().clone()
    with torch.no_grad():
        loss = head(torch.randn(3, 4), torch.tensor([0, 1, 8]))
    assert not loss.requires_grad
    optimizer.step()
    assert torch.equal(head.centers.detach(), before)
    assert not optimizer.state_dict()["state"]
    assert head.steps_taken == 0


def test_a_second_step_on_the_same_gradient_is_as_torch_does_it() -> None:
    head = PartialFC(5, 3)
    centers = head.centers.detach().clone().requires_grad_()
    ours, theirs = CenterSGD(head, lr=0.1), torch.optim.SGD([centers], lr=0.1, momentum=0.9, weight_decay=5e-4)
    centers.grad = torch.ones(5, 3)
    head.add_gradient(RowGradient(None, torch.ones(5, 3)))
    for optimizer in (ours, theirs, ours, theirs):
        optimizer.step()
    assert torch.equal(head.centers.detach(), centers.detach())


def test_a_second_backward_is_an_error() -> None:
    head = PartialFC(5, 3)
    loss = head(torch.randn(2, 3, requires_grad=True), torch.tensor([0, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward ran twice through one head step"):
        loss.backward()


def test_frozen_centers_get_no_gradient() -> None:
    head = PartialFC(5, 3)
    head.centers.requires_grad_(False)
    x = torch.randn(2, 3, requires_grad=True)
    head(x, torch.tensor([0, 4])).backward()
    assert x.grad is not None
    assert head.row_gradient is None


def test_a_closure_is_called() -> None:
    head = PartialFC(5, 3)
    optimizer = CenterSGD(head)

    def closure() -> float:
        loss = head(torch.ones(2, 3), torch.tensor([0, 4]))
        loss.backward()
        return float(loss.detach())

    before = head.centers.detach().clone()
    assert isinstance(optimizer.step(closure), float)
    assert not torch.equal(head.centers.detach(), before)


def train(head: PartialFC, optimizer: CenterSGD, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(4, 6, generator=generator), torch.randint(50, (4,), generator=generator)
        head(x, y).backward()
        optimizer.step()
        optimizer.zero_grad()


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", ["center_state", "state_dict"])
def test_sampled_training_goes_on_from_its_saved_state(way: str) -> None:
    heads = [PartialFC(50, 6, sample_rate=0.2, seed=1) for _ in range(3)]
    optimizers = [CenterSGD(head) for head in heads]
    train(heads[0], optimizers[0], range(6))
    train(heads[1], optimizers[1], range(3))
    if way == "center_state":
        load_center_state(heads[2], optimizers[2], [through_a_file(center_state(heads[1], optimizers[1]))])
    else:
        heads[2].load_state_dict(through_a_file(heads[1].state_dict()))
        optimizers[2].load_state_dict(through_a_file(optimizers[1].state_dict()))
    assert heads[2].steps_taken == 3
    train(heads[2], optimizers[2], range(3, 6))
    assert torch.equal(heads[2].centers, heads[0].centers)
    states = [
        optimizer.state[head.centers]["momentum_buffer"] for head, optimizer in zip(heads, optimizers, strict=True)
    ]
    assert torch.equal(states[2], states[0])
