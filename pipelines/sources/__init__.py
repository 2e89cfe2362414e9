"""Where a night's queries and candidates come from."""

from pipelines.sources.open import SOURCES as SOURCES
from pipelines.sources.open import check_kind as check_kind
from pipelines.sources.open import open_source as open_source
from pipelines.sources.protocol import Source as Source
