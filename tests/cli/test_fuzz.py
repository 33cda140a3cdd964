"""Mutated files and odd options: 1,000 in CI, 100,000 on demand (-m slow); see fuzz.py."""

from __future__ import annotations

import pytest

from tests.cli import fuzz


@pytest.mark.parametrize(
    ("count", "first"), [(1_000, 0), pytest.param(100_000, 1_000, marks=pytest.mark.slow)]
)
def test_a_result_or_one_sentence(count: int, first: int) -> None:
    assert fuzz.run(count, first) == {}
