"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine makes single examples slow. What is to be quick is measured by benchmarks.
settings.register_profile("no-deadline", parent=settings(), deadline=None)
settings.load_profile("no-deadline")
