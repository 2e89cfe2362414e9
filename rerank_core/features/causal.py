"""CAUSAL: whether a text contains causal language.

A table of markers decides, each with examples that it must match and traps that it must not: both are its tests. A
marker names a cause, an effect or a reason. Purposes ("in order to", "to this end") are none; "so that" is one, since
what follows is meant to be the effect. A marker that has other meanings too ("since", "led to", "attributed to") counts
only where the words around it indicate the causal one: a missing tag harms less than a wrong one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rerank_core.features.tags import Tag


class Marker(NamedTuple):
    words: str  # separated by "|"; every match contains one of them, and looking for it first is fast
    pattern: str  # case is ignored
    examples: tuple[str, ...]
    traps: tuple[str, ...] = ()


_INFINITIVE = (
    r"(?:be|become|begin|start|open|close|reopen|arrive|depart|leave|expire|retire|return|appear|air|premiere|debut|"
    r"play|perform|meet|take|have|go|run|finish|end|complete|launch|sail|fly|speak|sign|marry|face|host|come|join|"
    r"receive|get|make|give|continue|resume|move|stand|vote|hold|publish|undergo)"
)
_PLACE = (
    r"(?:river|door|station|gate|garden|kitchen|roof|road|street|harbou?r|beach|village|town|city|castle|church|"
    r"hall|cellar|basement|house|lake|sea|summit|top|stairs|room|bridge|exit|entrance|cave|mill|north|south|"
    r"east|west)"
)
_SUBJECT = (
    r"(?:he|she|it|they|we|you|there|this|these|most|many|some|no one|nobody|not|all|both|only|neither|such)"
)
_TEMPORAL = (  # after "since he was"
    r"(?:a (?:child|boy|girl|student|teenager)|young|born|little|\d|(?:first |last |\w+ly )?(?:\w+ed|built|"
    r"found|made|"
    r"sold|taken|written|won|in (?:school|college|office)))\b"
)
MARKERS = (
    Marker(
        "because",
        r"\bbecause\b",
        ("It fell because it rained.", "Because of snow the road is shut."),
        ("The cause is lost.",),
    ),
    Marker("therefore", r"\btherefore\b", ("It rained; therefore it fell.",), ("The fore deck is wet.",)),
    Marker(
        "thus",
        r"(?:^|[.;,] |\band )thus,? (?!far\b)|\bthus [a-z]+ing\b",
        ("It froze, and thus the pipe burst.", "The dam broke, thus flooding the mill."),
        ("Thus far it has held.", "He spoke thus to the miller."),
    ),
    Marker(
        "hence",
        r"(?<!year )(?<!years )(?<!days )(?<!weeks )(?<!months )(?<!decades )\bhence\b(?!-)(?! it came\b)",
        ("The soil is acid, hence the blue flowers.",),
        ("Two years hence it will open.", "Henceforth it is closed."),
    ),
    Marker(
        "consequen|accordingly|as a",
        r"\bconsequently\b|(?:^|[.;] )accordingly,|\bas (?:a|an? \w+) (?:result|consequence)\b|\bin consequence\b",
        (
            "It froze; consequently the pipe burst.",
            "As a direct result, the mill closed.",
            "Accordingly, the vote was void.",
        ),
        ("Adjust the screws accordingly.", "The results came in.", "It is of no consequence."),
    ),
    Marker(
        "due",
        rf"\bdue (?:in part |largely |mainly |partly |primarily )?to\b(?! {_INFINITIVE}\b(?! of\b))",
        ("Delays due to snow.", "It closed due largely to debt."),
        ("The ferry is due to arrive at six.", "Rent is due on Monday.", "The essay is due tomorrow."),
    ),
    Marker(
        "owing to|account|brought|virtue",
        r"\bowing to\b|\bon account of\b|\bbrought about\b|\bby virtue of\b",
        ("Owing to fog, nobody sailed.", "It was cancelled on account of rain."),
        ("He is owing two pounds.", "She has an account of the war."),
    ),
    Marker(
        "thanks",
        r"\bthanks (?:largely |mainly |partly |in part )?to\b"
        r"(?! (?:all|everyone|everybody|those|our|my|you|whoever|the (?:team|staff|readers|volunteers|many|"
        r"editors)))",
        ("Thanks to her it worked.", "The town grew, thanks largely to the canal."),
        ("Many thanks to all who came.", "Thanks to the staff for their help."),
    ),
    Marker(
        "so that",
        r"\bso that\b(?!['’])",
        ("He shut the gate so that the sheep would stay.",),
        ("So, that was it.", "So that's it."),
    ),
    Marker(
        "leads|lead |leading|led |gave rise|rise",
        rf"(?<!road )(?<!path )(?<!door )(?<!stairs )(?<!steps )(?<!street )(?<!trail )(?<!gate )(?<!bridge )"
        rf"(?<!lane )"
        rf"(?<!road that )(?<!path that )\b(?:leads?|led|leading|gave rise|gives? rise|"
        rf"giving rise) (?:\w+ly )?to\b"
        rf"(?! (?:the |a |an |his |her |their )?(?:\w+ )?{_PLACE}\b)(?! \d)",
        ("The reform led to unrest.", "Damp leads to rot.", "The find gave rise to a dispute."),
        (
            "The path led to the river.",
            "He led by example.",
            "They cut the lead to 3 points.",
            "A road leads to the old castle.",
            "He led today's tour.",
        ),
    ),
    Marker(
        "result",
        r"\bresult(?:ed|ing) (?:in|from)\b(?! (?:19|20)\d\d)|"
        r"(?<!the )(?<!these )(?<!those )(?<!our )(?<!his )(?<!her )(?<!its )(?<!best )(?<!test )(?<!election )"
        r"(?<!and )(?<!of )\bresults (?:in|from)\b"
        r"(?! (?:the (?:election|poll|vote|first|second|final|study|survey|trial)|this|these|our|\d|"
        r"[a-z]+ studies))|"
        r"\b(?:can|could|may|might|will|would|not|to|often|and|or|usually|that|which) results? in\b",
        ("This resulted in a strike.", "Haste may result in error.", "Frost results from clear skies."),
        (
            "The results in the election were close.",
            "It was his best result in years.",
            "Results from this study are kept.",
        ),
    ),
    Marker(
        "caus",
        r"\bcaus(?:ed|ing)\b|\bcauses? of (?!action\b)|\bcauses\b(?! (?:and|or|célèbre|[.,;]))(?= [a-z])|"
        r"\b(?:can|could|may|might|will|would|to|not|that|which|often|and|or) cause (?!and\b|of action\b)",
        (
            "Smoking causes cancer.",
            "The frost caused cracks.",
            "Mould can cause a cough.",
            "The cause of the fire is unknown.",
        ),
        ("A cause of action was stated.", "She gave to good causes.", "He died for the cause."),
    ),
    Marker(
        "trigger",
        r"\btriggered\b|\btriggering\b|\btriggers (?:an?|the)\b",
        ("The news triggered a run on the bank.",),
        ("He pulled the trigger.", "A triggerfish swam by."),
    ),
    Marker(
        "stem|arose",
        r"\bstem(?:s|med) from\b|\barose from\b",
        ("The quarrel stemmed from a debt.",),
        ("The stem from the rose was cut.", "The artery arises from the aorta."),
    ),
    Marker(
        "attributed",
        r"\b(?:is|are|was|were|be|been|largely|partly|mainly) attributed to\b"
        r"(?! (?-i:[A-Z])| (?:him|her|them|the (?:painter|sculptor|artist|poet|workshop|master|circle|school|"
        r"author))\b)",
        ("The decline is attributed to a lack of rain.",),
        ("The portrait was attributed to Moss.", "The hymn is attributed to the poet."),
    ),
    Marker(
        "why|reason",
        r"\b(?:that|this|which) is (?:the reason )?why\b|\bfor (?:this|that|which|these) reasons?\b|"
        r"\b(?:the|one|another|a|main) reasons? (?:why|that|for|is|was|behind)\b|"
        r"\bthe reason\b(?= [a-z]+ [a-z]+ed\b)",
        (
            "That is why the bell rang.",
            "For this reason the gate stays shut.",
            "The main reason for the delay was snow.",
        ),
        ("It was shut for security reasons.", "He would not listen to reason.", "Age of reason."),
    ),
    Marker(
        "since",
        rf"(?:^|[.;,] )since (?:{_SUBJECT}|(?:the|a|an|its|their|his|her|most|many) \w+) "
        rf"(?:(?:is|are|was|were)(?! {_TEMPORAL})|has no|have no|had no|nobody had|do|does|did|cannot|can|"
        rf"could|must|"
        rf"may|will|would|needs?)\b",
        (
            "Since he was ill, she drove.",
            "The hall was dark, since there was no lamp.",
            "It floats, since the wood is light.",
        ),
        (
            "It has stood since 1990.",
            "It has stood since May 1990.",
            "Closed since then.",
            "Since the war it is closed.",
            "Ever since, it is closed.",
            "Since he was a child he sang.",
            "Since it was founded it has grown.",
            "It is a festival, since it began a big one.",
        ),
    ),
    Marker(
        "as ",
        r"\bas (?:it|he|she|they|there) (?:is|are|was|were) (?:too|no longer|not|unable|already)\b",
        ("She turned back, as it was too dark.",),
        ("As a teenager she sang.", "As of May it is open."),
    ),
)
_COMPILED = tuple((marker.words.split("|"), re.compile(marker.pattern, re.IGNORECASE)) for marker in MARKERS)


def causal(text: str) -> bool:
    """Whether the text contains a causal marker."""
    low = text.lower()
    return any(
        pattern.search(text) is not None for words, pattern in _COMPILED if any(word in low for word in words)
    )


CAUSAL = Tag(
    lambda given: [facts.causal for facts in given.facts], "CAUSAL", values=(True, False), ideal=True
)
