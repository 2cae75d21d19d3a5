"""A build backend that goes to the root of the repository and lets scikit-build-core build there."""

import os
from pathlib import Path

os.chdir(Path(__file__).resolve().parents[2])

from scikit_build_core.build import *  # noqa: E402, F403
