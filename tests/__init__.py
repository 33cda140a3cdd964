"""Tests; `tests.zoo` holds the networks that they share."""
