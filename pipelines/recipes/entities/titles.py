"""Annotations from an encyclopaedia's titles: "Kuno is a river in ..." makes Kuno a LOC throughout its passage.

Correct for nine of ten titles whose first sentence defines its subject with one of the words listed here; other titles
are ignored. So the teacher sees more films, bands and villages than the annotated sentences have.
"""

from __future__ import annotations

import re

_HEADS = {
    "PER": """actor actress anthropologist architect artist astronaut astronomer athlete author aviator baron
        bassist biologist bishop boxer broadcaster businessman businessperson businesswoman cardinal cartoonist
        chemist choreographer coach columnist comedian commander composer conductor cricketer critic curator cyclist
        dancer designer diplomat director dramatist driver drummer economist editor emperor engineer entertainer
        entrepreneur essayist executive explorer filmmaker footballer goalkeeper golfer guitarist historian
        industrialist inventor journalist judge jurist king lawyer linguist lyricist manager mathematician
        midfielder missionary model monarch mountaineer musician musicologist naturalist noblewoman nobleman
        novelist nun officer painter personality philanthropist philosopher photographer physician physicist pianist
        playwright player poet politician presenter priest princess prince producer professor psychologist queen
        quarterback racer rapper saint scholar scientist screenwriter sculptor singer skater skier socialite
        sociologist soldier songwriter sprinter statesman striker surgeon swimmer theologian translator violinist
        vocalist wrestler writer""",
    "LOC": """airport archipelago area avenue bay beach borough bridge building canal capital castle cathedral cemetery
        city coast commune community continent country county creek desert district glacier hamlet harbor harbour
        highway hill house island lake lighthouse location mall mansion mountain municipality museum neighborhood
        neighbourhood ocean palace parish park peak peninsula prefecture province region reservoir resort river road
        sea settlement skyscraper square stadium state station street suburb territory tower town township valley
        venue village volcano""",
    "ORG": """agency airline association bank band brewery broadcaster broker business cabinet chain charity choir club
        college committee company conglomerate consortium cooperative corporation council court department
        distributor division duo ensemble firm force foundation group institute institution label league library
        manufacturer ministry network newspaper nonprofit orchestra organisation organization party publisher quartet
        regiment retailer school seminary society studio subsidiary team trio union university""",
    "MISC": """album award awards battle book campaign championship championships civilization competition documentary
        election ep event festival film franchise game language magazine manga miniseries movie musical novel
        novella opera play poem prize race religion revolution sequel series show single sitcom soap song soundtrack
        symphony telenovela tournament treaty trilogy videogame war""",
}
_LABEL = {head: label for label, heads in _HEADS.items() for head in heads.split()}
_IS = re.compile(r"\b(?:is|was|are|were)\s+(?:an?|the|one of the|both an?)\s+([^.;]*)")
_PHRASE_ENDS = re.compile(
    r"[,(]|\b(?:in|of|from|by|for|to|on|at|and|or|with|that|which|who|whose|where|located|based|founded|formed|born|"
    r"directed|written|released|starring|produced|created|established|published|recorded|known|situated|set|owned|"
    r"operated|headquartered|near|between|as|serving|under|best|who's|played|held)\b"
)
_LIFE = re.compile(r"\((?:[^()]*; )?(?:born|[^()]*\d{3,4}\s*[–-]\s*[^()]*\d{3,4}\))")
_CAPITAL_BEFORE = re.compile(r"[A-Z][\w.'’-]*\s+$")
_BRACKETS = re.compile(r"\s*\([^)]*\)$")


def label_of_title(title: str, text: str) -> str | None:
    """PER, ORG, LOC or MISC by the definition at the start of `text`; None without a recognised one."""
    opening = text[: len(title) + 400].lstrip("\"“'")
    name = _BRACKETS.sub("", title)
    if not opening.startswith((name.split(" ")[0], "The ", "the ")):
        return None
    definition = _IS.search(opening)
    if not definition:
        return None
    phrase = _PHRASE_ENDS.split(definition[1], maxsplit=1)[0].split()
    if phrase[-2:-1] and phrase[-1] == "station" and phrase[-2].lower() in {"radio", "television", "tv"}:
        return "ORG"
    label = _LABEL.get(re.split(r"[-/]", phrase[-1].lower())[-1]) if phrase else None
    if label != "PER" and _LIFE.search(opening[: definition.start()]):
        return "PER" if label is None else None
    return label


def title_spans(title: str, text: str) -> list[tuple[int, int, str]]:
    """(start, end, label) of the title's mentions in `text`, in characters; for a person also of the last name."""
    label = label_of_title(title, text)
    name = _BRACKETS.sub("", title)
    if label is None or len(name) < 3 or not name[0].isupper():
        return []
    mentions = _mentions(name, text)
    last = name.split()[-1]
    if label == "PER" and last != name and len(last) > 3 and last[0].isupper():
        # Not after a capitalised word, which is probably the first name of a relative.
        mentions += [
            (start, end) for start, end in _mentions(last, text) if not _CAPITAL_BEFORE.search(text[:start])
        ]
    return [(start, end, label) for start, end in sorted(mentions)]


def _mentions(name: str, text: str) -> list[tuple[int, int]]:
    """Positions of `name` in `text`, unless another capitalised word follows: "Kuno Valley" is another name."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])(?!\s+[A-Z])")
    return [(match.start(), match.end()) for match in pattern.finditer(text)]
