"""fold against sums by hand and against the gradient of torch's unfold."""

import pytest
import torch

from graphscale.layers.windows import fold


def test_overlapping_windows_are_added_up():
    windows = torch.tensor([[1, 2, 3], [10, 20, 30]])
    assert fold(windows, 6, 0, 2).tolist() == [1, 2, 13, 20, 30, 0]


@pytest.mark.parametrize(("dim", "width", "step"), [(0, 2, 1), (1, 3, 2), (2, 4, 5), (2, 6, 1)])
def test_is_the_gradient_of_unfold(dim, width, step):
    x = torch.randn(4, 7, 10, dtype=torch.float64, requires_grad=True)
    unfolded = x.unfold(dim, width, step)
    windows = torch.randn_like(unfolded)
    (wanted,) = torch.autograd.grad(unfolded, x, windows)
    torch.testing.assert_close(fold(windows, x.shape[dim], dim, step), wanted)


def test_vmap_and_forward_mode():
    windows, tangent = torch.randn(2, 3, 5, 2, dtype=torch.float64)[:, None]

    def function(windows):
        return fold(windows, 7, 1, 1)

    batched = torch.func.vmap(function)(windows)
    torch.testing.assert_close(batched, torch.stack([function(each) for each in windows]))
    value, along = torch.func.jvp(function, (windows[0],), (tangent[0],))
    torch.testing.assert_close(value, function(windows[0]))
    torch.testing.assert_close(along, function(tangent[0]))
