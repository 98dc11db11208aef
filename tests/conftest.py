"""Settings for every test.

Hypothesis tries the same examples each time, so that the suite says the same of the same code; `make soak` lets it explore.
"""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# A shell that starts the suite in the background has it ignore Ctrl-C, and so every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules and tests stay until the end. Each process of the suite collects seconds faster when the collector does not look at
# them again and again.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collector see only what tests create."""
    gc.freeze()
    gc.enable()
