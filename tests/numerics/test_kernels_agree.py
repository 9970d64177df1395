"""The compiled kernels against PyTorch's, function by function, on rows at rest, in motion, zero, huge and tiny."""

import pytest
import torch
from kernel_agreement import Agreement, AgreementTests

from partial_fc import kernels_native, native_library
from partial_fc.pairs import PairBuffer
from partial_fc.workspace import Workspace

pytestmark = pytest.mark.numerics


def test_the_compiled_kernels_were_built() -> None:
    assert native_library.available(), "this environment has a compiler: make venv builds them"


class TestCompiledKernels(AgreementTests):
    agreement = Agreement(kernels_native, torch.device("cpu"))


class TestCompiledKernelsOnBfloat16(AgreementTests):
    agreement = Agreement(kernels_native, torch.device("cpu"), torch.bfloat16)


def test_pairs_of_many_tiles_stay_while_their_buffer_grows() -> None:
    """A tile's pairs are written behind those before it; a second step starts anew in the same memory."""
    workspace = Workspace(torch.device("cpu"))
    for step in range(2):
        buffer, expected = PairBuffer(workspace), []
        for tile, kept in enumerate((3, 0, 10, 200, 1)):
            room = buffer.room(210)
            assert len(room) == 210
            room.rows.copy_(torch.arange(210) + 1000 * tile + step)
            for values in (room.samples, room.coefficients, room.cosines):
                values.copy_(room.rows)
            expected += room.rows[:kept].tolist()
            buffer.keep(kept)
        taken = buffer.taken()
        buffer.room(10**6).rows.zero_()
        assert taken.rows.tolist() == expected
        for values in (taken.samples, taken.coefficients, taken.cosines):
            assert values.tolist() == expected
