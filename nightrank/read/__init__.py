"""Look-ups in what a night published, for services: pyarrow is all that this needs.

import nightrank.read

reader = nightrank.read.open("output/", follow=True)
for passage in reader.lookup("who designed the eiffel tower"):
    print(passage.rank, passage.score, passage.text)
"""

from nightrank.read.reader import MIN_SIMILARITY, Reader, open
from nightrank.read.records import Near, Passage, QueryEntry, QueryList, RunInfo
from rerank_core.errors import OutputError, QueryNotFound, RunRemoved
from schemas.errors import ManifestError, NightrankError

__all__ = [
    "MIN_SIMILARITY",
    "ManifestError",
    "Near",
    "NightrankError",
    "OutputError",
    "Passage",
    "QueryEntry",
    "QueryList",
    "QueryNotFound",
    "Reader",
    "RunInfo",
    "RunRemoved",
    "open",
]
