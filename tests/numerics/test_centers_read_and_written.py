"""Rows that rest may be brought up to date late, but no reader, writer, saver or new optimizer can tell."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sgd_pair import HEAVY, LATE, ONCE, USUAL, Pair
from torch import Tensor

from partial_fc import CenterSGD, PartialFC, center_state, load_center_state

pytestmark = pytest.mark.numerics


def test_reading_changes_nothing() -> None:
    silent, read = Pair(HEAVY), Pair(HEAVY)
    for step in range(30):
        for pair in (silent, read):
            pair.step(ONCE)
        if step % 4 == 0:
            read.check()
            assert torch.equal(read.head.centers, read.head.centers)
        if step % 7 == 0:
            read.head.state_dict()
            read.optimizer.state_dict()
            center_state(read.head, read.optimizer)
    for pair in (silent, read):
        pair.check()
    # Slope 80 makes more of a rounding difference, step by step.
    apart = (silent.head.centers - read.head.centers).norm(dim=1) / silent.start.norm(dim=1)
    assert apart.max() < 1e-4


def by_attribute(head: PartialFC) -> Tensor:
    return head.centers


def by_parameters(head: PartialFC) -> Tensor:
    return next(iter(head.parameters()))


def by_name(head: PartialFC) -> Tensor:
    return dict(head.named_parameters())["centers"]


def by_state_dict(head: PartialFC) -> Tensor:
    centers: Tensor = head.state_dict()["centers"]
    return centers


def by_deep_copy(head: PartialFC) -> Tensor:
    return copy.deepcopy(head).centers


@pytest.mark.parametrize("read", [by_attribute, by_parameters, by_name, by_state_dict, by_deep_copy])
def test_every_way_to_read_is_current(read: Callable[[PartialFC], Tensor]) -> None:
    pair = Pair(HEAVY)
    pair.steps(12, ONCE)
    truth = pair.twins[0].now
    error = (read(pair.head).detach().double() - truth).norm(dim=1) / truth.norm(dim=1)
    assert error.max() < 1e-5


def write_row(head: PartialFC, row: int, value: Tensor) -> None:
    with torch.no_grad():
        head.centers[row] = value


def write_all(head: PartialFC, row: int, value: Tensor) -> None:
    changed = head.centers.detach().clone()
    changed[row] = value
    with torch.no_grad():
        head.centers.copy_(changed)


def write_by_load_centers(head: PartialFC, row: int, value: Tensor) -> None:
    changed = head.centers.detach().clone()
    changed[row] = value
    head.load_centers(changed)


def write_data(head: PartialFC, row: int, value: Tensor) -> None:
    head.centers.data[row] = value


def write_new_data(head: PartialFC, row: int, value: Tensor) -> None:
    changed = head.centers.detach().clone()
    changed[row] = value
    head.centers.data = changed


def write_detached(head: PartialFC, row: int, value: Tensor) -> None:
    head.centers.detach()[row] = value


def write_a_parameter(head: PartialFC, row: int, value: Tensor) -> None:
    with torch.no_grad():
        next(iter(head.parameters()))[row] = value


def write_by_state_dict(head: PartialFC, row: int, value: Tensor) -> None:
    changed = {name: item.clone() if isinstance(item, Tensor) else item for name, item in head.state_dict().items()}
    changed["centers"][row] = value
    head.load_state_dict(changed)


WRITES = [
    write_row,
    write_all,
    write_by_load_centers,
    write_data,
    write_new_data,
    write_detached,
    write_a_parameter,
    write_by_state_dict,
]


@pytest.mark.parametrize("row", [0, LATE[0]], ids=["in use", "at rest"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_respected(write: Callable[[PartialFC, int, Tensor], None], row: int) -> None:
    """The next forward sees it; momentum stays, but for the part that decay made, which follows the row."""
    pair = Pair(HEAVY)
    pair.steps(6, LATE)
    pair.steps(6)
    value = -2.0 * pair.twins[0].now[row].float()
    write(pair.head, row, value)
    pair.write(row, value)
    pair.check_loss(row)
    pair.steps(4)
    pair.steps(4, LATE)
    pair.check()


def test_zero_grad_without_a_step() -> None:
    pair = Pair(HEAVY)
    for _ in range(5):
        pair.step(ONCE)
        pair.backward(LATE)
        pair.optimizer.zero_grad()
    pair.check()


def test_a_step_without_a_gradient_does_nothing() -> None:
    """No decay and no momentum either, for no row: also not later, when a row is brought up to date."""
    pair = Pair(HEAVY)
    pair.steps(4, ONCE)
    for _ in range(7):
        pair.optimizer.step()
    pair.check()
    pair.steps(4, ONCE)
    for _ in range(7):
        pair.update()
    pair.steps(4, ONCE)
    pair.check()


def test_a_step_with_a_gradient_of_zero_is_a_step() -> None:
    pair = Pair(HEAVY)
    pair.steps(4, ONCE)
    for _ in range(5):
        pair.backward(LATE, factor=0.0)
        pair.update()
    pair.check()


def test_micro_batches_make_one_step() -> None:
    pair = Pair(HEAVY)
    for _ in range(6):
        for rows in (ONCE, LATE, ONCE):
            pair.backward(rows, factor=1 / 3)
        pair.update()
    pair.check()


def test_a_forward_without_backward_is_no_step() -> None:
    pair = Pair(HEAVY)
    for _ in range(6):
        with torch.no_grad():
            pair.head(*pair.batch(LATE))
        pair.head(*pair.batch(LATE))
        pair.step(ONCE)
    pair.check()


def test_a_new_optimizer_starts_without_momentum() -> None:
    pair = Pair(HEAVY)
    pair.steps(8, ONCE)
    pair.optimizer = CenterSGD(pair.head, **USUAL)
    pair.new_twin_optimizers(USUAL)
    pair.steps(2)
    pair.check()
    pair.steps(8, ONCE)
    pair.check()


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_center_state(saved: Pair, head: PartialFC, optimizer: CenterSGD) -> None:
    load_center_state(head, optimizer, [through_a_file(center_state(saved.head, saved.optimizer))])


def head_first(saved: Pair, head: PartialFC, optimizer: CenterSGD) -> None:
    states = through_a_file([saved.head.state_dict(), saved.optimizer.state_dict()])
    head.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])


def optimizer_first(saved: Pair, head: PartialFC, optimizer: CenterSGD) -> None:
    states = through_a_file([saved.optimizer.state_dict(), saved.head.state_dict()])
    optimizer.load_state_dict(states[0])
    head.load_state_dict(states[1])


@pytest.mark.parametrize("used", [False, True], ids=["into fresh ones", "into used ones"])
@pytest.mark.parametrize("load", [by_center_state, head_first, optimizer_first])
def test_training_goes_on_from_its_saved_state(load: Callable[[Pair, PartialFC, CenterSGD], None], used: bool) -> None:
    """Rows at rest, with momentum, at the time of saving; whatever the receiving objects held is forgotten."""
    pair = Pair(HEAVY)
    pair.steps(10, ONCE)
    other = Pair(USUAL)
    if used:
        other.steps(5, LATE)
    load(pair, other.head, other.optimizer)
    pair.head, pair.optimizer = other.head, other.optimizer
    pair.optimizer.param_groups[0].update(HEAVY)  # center_state leaves the settings to the run's configuration
    pair.check()
    pair.steps(6)
    pair.steps(6, ONCE)
    pair.check()
