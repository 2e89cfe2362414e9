"""A published night to look up, and what both adapters' tests ask of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nightrank.read
from nightrank.read import Reader
from tests.conftest import Night


@pytest.fixture
def reader(night: Night) -> Iterator[Reader]:
    with nightrank.read.open(str(night.output)) as opened:
        yield opened
