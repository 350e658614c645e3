"""What the tests of this folder share with pytest."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keeps a figure with the test's result; `--junitxml` writes it out."""
    return lambda name, value: request.node.user_properties.append((name, value))
