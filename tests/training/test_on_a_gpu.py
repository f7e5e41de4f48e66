"""A training on a GPU, a pretended one."""

import subprocess
import sys
from pathlib import Path


def test_trainings_on_a_pretended_gpu() -> None:
    """In a process of its own: PyTorch has to know of a device before it first differentiates."""
    checks = Path(__file__).with_name("on_a_pretended_gpu.py")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(checks)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
