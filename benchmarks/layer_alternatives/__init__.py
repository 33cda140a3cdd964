"""What benchmarks/layers.py measures: layers, sizes, and alternatives that compute the same."""

from . import (
    features,
    locally_connected,
    lookups,
    one_bit,
    sequences,
)

CASES = [
    *sequences.CASES,
    *lookups.CASES,
    *features.CASES,
    *locally_connected.CASES,
    *one_bit.CASES,
]
