"""Makes the synthetic runs of the tests importable; at the end of the path, so that an installed package wins."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
