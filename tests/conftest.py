"""Lets the tests import their helpers (``worlds``): with importlib mode pytest adds no path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
