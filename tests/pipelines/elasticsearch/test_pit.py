"""The log's query, the part that needs no server: what pages are sorted by."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.elasticsearch.pit import FORMAT, _by_time
from tests.support.es_config import log


@pytest.mark.parametrize(
    ("types", "order"),
    [
        (("date",), {"unmapped_type": "date", "format": FORMAT}),
        (("long",), {"unmapped_type": "long"}),
        (("date", "date_nanos"), {"unmapped_type": "date", "format": FORMAT, "numeric_type": "date_nanos"}),
        (("double", "long"), {"unmapped_type": "double", "numeric_type": "double"}),
    ],
)
def test_a_slice_is_read_in_the_order_of_time(types: tuple[str, ...], order: dict[str, Any]) -> None:
    assert _by_time(log(time_types=types)) == [{"timestamp": {"order": "asc", "missing": 1, **order}}]


def test_a_log_without_times_has_no_order_of_time() -> None:
    assert _by_time(log(time_types=())) == []
