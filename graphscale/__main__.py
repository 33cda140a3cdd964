"""python -m graphscale."""

import sys

from graphscale.cli import main

sys.exit(main())
