"""Makes helpers of the tests importable as ``tests.<folder>.<module>``.

The project's folder goes to the *end* of the search path, so that the package under test stays the installed one.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
