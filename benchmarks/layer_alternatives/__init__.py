"""What benchmarks/layers.py measures: layers, sizes, and the best other ways to compute them."""

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
