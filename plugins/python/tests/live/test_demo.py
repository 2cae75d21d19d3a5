"""The demonstration of examples/engines runs to its end; with so few steps it learns nothing."""

import os
import subprocess
import sys

import programs


def test_the_demonstration_runs(tmp_path):
    environment = {**os.environ, "HILORA_BIN": str(programs.bin_folder()), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, programs.EXAMPLES / "engines" / "demo.py", "-o", tmp_path / "out", "--base-steps", "20",
                           "--adapter-steps", "20", "--llama", ""], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "own adapter first in the route: 30 of 30" in done.stdout
    assert "30 prompts of 5 tasks" in done.stdout and "right answers, PyTorch" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapters", "pool.hlp"}
