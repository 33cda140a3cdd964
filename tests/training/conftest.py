"""Processes that these tests start find the tests' own modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
