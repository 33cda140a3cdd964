"""Pre-train sizes of kernels: the paper's Table 1, the rule for others, dilation, user tables."""

import math

import pytest

from graphscale.core.errors import GraphScaleError
from graphscale.core.kernel_sizes import parse_kernel_table, pretrain_dilation, pretrain_size


@pytest.mark.parametrize(("target", "pretrain"), [(1, 1), (3, 2), (5, 3), (7, 5), (11, 7)])
def test_table_1_of_the_paper(target: int, pretrain: int) -> None:
    assert pretrain_size(target) == pretrain


@pytest.mark.parametrize("target", range(2, 64))
def test_other_sizes_are_in_the_tables_spirit(target: int) -> None:
    ratio = target / pretrain_size(target)
    assert 1 <= ratio <= 2
    if target >= 6:
        assert 1.25 <= ratio <= 1.75


def test_larger_kernels_never_get_smaller_ones() -> None:
    odd = [pretrain_size(target) for target in range(1, 64, 2)]
    even = [pretrain_size(target) for target in range(2, 64, 2)]
    assert odd == sorted(odd)
    assert even == sorted(even)


@pytest.mark.parametrize("target", [9, 13, 15, 31])
def test_odd_kernels_beyond_the_table_keep_their_centre_pixel(target: int) -> None:
    assert pretrain_size(target) % 2 == 1


def test_the_users_table_comes_first() -> None:
    assert pretrain_size(3, {3: 3}) == 3
    assert pretrain_size(9, {9: 4}) == 4
    assert pretrain_size(5, {3: 3}) == 3


@pytest.mark.parametrize("dilation", [2, 3, 4, 6, 12])
@pytest.mark.parametrize("target", [3, 5, 7])
def test_dilated_kernels_are_scaled_by_their_effective_size(target: int, dilation: int) -> None:
    size = pretrain_size(target)
    new = pretrain_dilation(target, dilation, size)
    effective, wanted = (target - 1) * dilation + 1, pretrain_size((target - 1) * dilation + 1)
    reached = (size - 1) * new + 1
    assert reached <= effective
    # No dilation comes nearer than half a step.
    assert abs(reached - wanted) <= (size - 1) / 2


def test_no_other_size_is_better_and_huge_ones_take_no_time() -> None:
    for target in range(1, 200):
        costs = {
            size: abs(math.log(target / size / 1.5)) + 0.16 * ((target - size) % 2)
            for size in range(1, target + 1)
        }
        if target not in (1, 3, 5, 7, 11):  # of the paper's table
            assert pretrain_size(target) == min(costs, key=costs.get)
    assert pretrain_size(3 * 2**40) == 2**41
    assert pretrain_dilation(3, 3 * 2**40, 2) == 2**42


def test_kept_kernels_keep_their_dilation() -> None:
    assert pretrain_dilation(3, 4, 3) == 4
    assert pretrain_dilation(3, 1, 2) == 1
    assert pretrain_dilation(1, 2, 1) == 2


@pytest.mark.parametrize(
    "text",
    ["3:2,5:3", "3:2, 5:3,", "3 2\n5 3\n", "# table\n3:2  # small, too\n\n5:3", "3:2\r\n5:3\r\n"],
)
def test_tables_as_text(text: str) -> None:
    assert parse_kernel_table(text) == {3: 2, 5: 3}


@pytest.mark.parametrize(
    "text", ["3", "3:2:1", "three:2", "3:4", "0:0", "3:0", "-3:2", "²:1", "3:2;5:3"]
)
def test_entries_that_are_no_sizes_are_named(text: str) -> None:
    with pytest.raises(GraphScaleError, match="kernel table entry"):
        parse_kernel_table(text)


def test_a_size_given_twice_must_be_given_the_same() -> None:
    assert parse_kernel_table("3:2,3:2,5:3") == {3: 2, 5: 3}
    with pytest.raises(GraphScaleError, match=r"3 becomes both 2 and 1; give each"):
        parse_kernel_table("3:2,5:3,3:1")
