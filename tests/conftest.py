"""One fresh seed for a whole run: workers of pytest-xdist must collect the same tests, and inherit the environment."""

import os


def pytest_configure(config):
    os.environ.setdefault("HILORA_SEED", str(int.from_bytes(os.urandom(4), "little")))


def pytest_report_header(config):
    return f"HILORA_SEED={os.environ['HILORA_SEED']}"
