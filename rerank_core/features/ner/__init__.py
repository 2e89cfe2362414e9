"""Named-entity recognisers."""

from rerank_core.features.ner.load import LABELS, RECOGNISERS, Recogniser, load_recogniser

__all__ = ["LABELS", "RECOGNISERS", "Recogniser", "load_recogniser"]
