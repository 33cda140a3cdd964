"""Put the repository on the import path, also for processes that these tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
