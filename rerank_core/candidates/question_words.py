"""Words by which `rerank_core.candidates.decomposition` analyses a question; all in lower case."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


PUNCTUATION = _set(", : ; ?")
ASKING = _set("who whom whose which what where when why how")
RELATIVE = _set("who whom whose which that where")
PLURAL_AUXILIARY = _set("are were do have")
AUXILIARY = PLURAL_AUXILIARY | _set("is was be been does did has had can could will would should")
PREPOSITIONS = _set(
    "of in on at by to for from with under over during after before about as into near through "
    "between against within along besides"
)
DETERMINERS = _set("the a an this these those his her its their")
OPENS = ASKING | AUXILIARY
_OTHER_STOP_WORDS = _set(
    "and or that it he she they there being am much many long often old both either neither also than then not no "
    "name named called same other another one"
)
STOP_WORDS = OPENS | PREPOSITIONS | DETERMINERS | _OTHER_STOP_WORDS
"""No part of a question consists of one of them alone."""
SILENT = STOP_WORDS | PUNCTUATION
COMPARATIVES = _set(
    "first last earlier earliest later latest sooner older oldest younger youngest elder newer newest more most less "
    "least fewer better best longer longest shorter taller tallest higher highest lower larger largest bigger "
    "biggest smaller greater closer nearer farther further faster slower heavier deeper wider stronger richer"
)
PAIR_OPENS = _set("between of")  # "Of A and B, ..."
SKIPPED_AFTER_COMPARATIVE = _set("of between from recently out is was :")
ALIKE = _set("both share shares shared common same similar alike")
SIDE_ENDS = AUXILIARY | PUNCTUATION | ALIKE
NOUN_STARTS_AFTER = PREPOSITIONS | PUNCTUATION | OPENS
