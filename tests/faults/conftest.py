"""What several kinds of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.object_store import MemoryFileSystem


@pytest.fixture
def stored() -> Iterator[dict[str, bytes]]:
    """The objects of a store in memory."""
    yield MemoryFileSystem.objects
    MemoryFileSystem.objects.clear()
