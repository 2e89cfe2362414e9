"""ROLE: a passage's rhetorical function, by the first rule that its opening sentences match.

The first of the opening sentences that any rule matches decides, by the first rule that matches it: the order of the
rules is their priority. The opening of a passage shows its function; "such as" in its tenth sentence does not. A
passage whose opening no rule matches is a Main_Claim. Each rule has examples that it must match and traps that it must
not: both are its tests.

There is no role for causes: [CAUSAL] is independent of the role.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rerank_core.candidates.units import sentences
from rerank_core.features.tags import Tag

OPENING = 3  # sentences
_LONGEST = 1500  # characters of a passage that are read


def _any_of(words: str) -> str:
    """A pattern for any of the words; an underscore stands for the space inside one."""
    return f"(?:{'|'.join(words.split()).replace('_', ' ')})"


# What a named thing is said to be, by kind; a term that is defined is said to be something else.
_WORK = _any_of(
    """
    films? movie album song single EP novel novella book series sitcom soap_opera show episode play
    musical opera ballet poem painting sculpture magazine newspaper journal video_game game franchise
    documentary anime manga comic soundtrack track programme program
    """
)
_PLACE = _any_of(
    """
    villages? towns? city cities hamlet suburb municipality county district province region state country
    commune parish neighbou?rhood settlement community township borough river lake mountain island islands
    bay street road highway park railway station airport stadium arena building church cathedral castle
    house hotel bridge museum school university college hospital hill valley peninsula prefecture capital
    """
)
_GROUP = _any_of(
    """
    bands? duo trio company corporation club team organi[sz]ation association agency party group label
    brand airline bank league tournament competition championship award festival network channel ship
    battle war election season edition retailer manufacturer publisher foundation charity orchestra
    squadron regiment event
    """
)
_THING = rf"(?:{_WORK}|{_PLACE}|{_GROUP})"
# Not "academic", "general", "editor" and the like: journals, hospitals and programs are that too.
_PERSON_WORD = _any_of(
    """
    actor actress singer songwriter musician rapper composer conductor pianist guitarist drummer bassist
    violinist dancer choreographer comedian presenter broadcaster journalist writer author novelist poet
    playwright screenwriter dramatist director producer filmmaker cinematographer animator cartoonist
    artist painter sculptor architect photographer designer engineer inventor scientist physicist chemist
    biologist mathematician astronomer botanist physician surgeon psychologist psychiatrist economist
    historian philosopher theologian professor scholar teacher educator politician statesman diplomat
    lawyer attorney judge jurist activist philanthropist businessman businesswoman entrepreneur
    businessperson banker officer soldier admiral pilot aviator astronaut explorer missionary priest
    bishop cardinal monk saint rabbi emperor empress king queen prince princess duke duchess nobleman
    footballer cricketer golfer boxer wrestler swimmer runner athlete cyclist skater skier gymnast jockey
    coach referee quarterback pitcher goalkeeper midfielder defender striker baseman outfielder chef
    socialite murderer member_of_parliament ruler monarch pope nurse critic rower curler fencer sprinter
    sailor handballer biathlete canoeist leader governor minister senator disc_jockey DJ magician stuntman
    vocalist lyricist organist percussionist cellist clergyman commander pundit commentator personality
    celebrity youtuber blogger curator naturalist geologist zoologist entomologist researcher sociologist
    anthropologist consultant administrator civil_servant bureaucrat gangster mobster serial_killer outlaw
    sheriff marshal merchant industrialist investor founder mayor councillor barrister solicitor
    translator linguist archaeologist librarian fashion_model racing_driver football_manager
    business_executive army_general major_general lieutenant_general
    """
)
_PERSON = (
    rf"(?:(?:{_PERSON_WORD}|(?<!media )(?<!music )player)\b(?! (?:[\w-]+ )?{_THING}\b)|"
    r"member of the (?:Assembly|Senate|House|Parliament|National|Legislative)\b)"
)
_POINTER = (  # opens a sentence about something named before
    r"(?i:(?:it|he|she|they|we|you|i|this|that|these|those|there|here|what|which|who|one|his|her|its|their|our|"
    r"in|on|at|"
    r"for|as|to)\b)"
)
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_APPOSITION = r"(?:\s\([^()]{0,160}\)|,\s(?:[^,.;]{1,80},\s){1,3})?"
_VERB = _any_of(
    """
    click press tap select choose enter type open close install download upload run save restart remove
    insert add mix stir pour heat boil bake cut wash rinse place put turn push pull fill attach connect
    disconnect check make_sure ensure follow visit contact call send submit go_to log_in sign_in copy drag
    scroll unplug tighten use
    """
)


class RoleRule(NamedTuple):
    role: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]
    traps: tuple[str, ...]  # similar, but of another role


def _rule(role: str, pattern: str, examples: tuple[str, ...], traps: tuple[str, ...]) -> RoleRule:
    return RoleRule(role, re.compile(pattern), examples, traps)


DEFAULT_ROLE = "Main_Claim"
RULES = (
    _rule(
        "Question",
        r"\?[\"”’)]*\s*$",
        ("Can a tenant end the lease early?", '"Who locked the gate?"'),
        ("She asked who had locked the gate.", "The poet (born 1610?) stayed in the village."),
    ),
    _rule(
        "Conclusion",
        r"^(?i:(?:therefore|thus|hence|overall|altogether|ultimately),? (?!far\b)|consequently,|"
        r"in (?:conclusion|summary|short|sum|brief)\b|to (?:conclude|sum up|summari[sz]e)\b|taken together|"
        r"conclusions?:|(?:we|the authors) (?:therefore )?conclude\b|(?:these|our) (?:results|findings|data) "
        r"(?:suggest|indicate|demonstrate|imply)\b)",
        (
            "In conclusion, the bridge changed the town.",
            "Thus the mill was sold.",
            "Taken together, the trials favour the older drug.",
        ),
        (
            "Thus far nobody has crossed it.",
            "The conclusion of the opera was cut.",
            "A thus placed comma helps.",
        ),
    ),
    _rule(
        "Counter_Argument",
        r"^(?i:however\b(?! (?:much|many|small|large|long|hard)\b)|nevertheless|nonetheless|on the contrary|"
        r"even so\b|"
        r"despite\b|in spite of\b|although\b|though\b|but\b|yet,|admittedly)|"
        r"\b(?i:critics (?:argue|say|claim|note|point)|opponents (?:argue|say|claim)|"
        r"(?:has|have|had|was|were|been) (?:widely |often |heavily )?(?:criticis|criticiz|disput|refut)ed|"
        r"contrary to)\b",
        (
            "However, the dam never held.",
            "Critics argue that the tax hurts small farms.",
            "Contrary to popular belief, bats see well.",
        ),
        (
            "However much it rains, the cellar stays dry.",
            "Yet another mill opened.",
            "She worked as a critic for the paper.",
            "The butler waited.",
        ),
    ),
    _rule(
        "Background",
        r"^(?i:background|introduction|objectives?|context|rationale|aims?|purpose)\b(?: ?:|/| (?:and|&) )|"
        r"\b(?i:little is known|it is (?:well |widely |not )?(?:known|believed|recogni[sz]ed) that|"
        r"(?:has|have) (?:long|traditionally|historically) been)\b",
        ("Background: bees have grown rare in the valley.", "Little is known of the first miller."),
        ("The background was painted blue.", "His aims were plain."),
    ),
    _rule(
        "Definition",
        rf"^(?!{_POINTER})(?:(?i:an?|the) )?[\w'’-]+(?: (?!is\b|are\b)[a-z][\w'’-]*){{0,5}}{_APPOSITION} (?:is|are) "
        rf"(?:defined as\b|(?i:the )?(?:term|name|word) (?:for|given)\b|"
        rf"(?:an?|any|the|one of the|when|where) (?!(?:[\w'’-]+ ){{0,5}}?(?:{_THING}\b|{_PERSON}))"
        rf"(?:[a-z][\w'’-]*,? ?){{3,}})",
        (
            "A fugue is a composition in which voices enter in turn.",
            "Erosion (from the Latin for gnawing) is the process by which wind and water wear down rock.",
            "Stalactites are the hanging columns that dripping water leaves.",
        ),
        (
            "Harrowgate is a village in the north of the county.",
            "It is a wonder that he came back.",
            "The Blue Lantern is a 1965 novel by Ann Lee.",
            "She is a keen and patient gardener.",
        ),
    ),
    _rule(
        "Definition",
        r"^[^.;]{0,80}\b(?:refers? to (?:an?|any|the|all)\b|(?:is|are) (?:an?|the) (?:\w+ )?(?:term|phrase|word|"
        r"concept) (?:used|for|meaning|that|in|referring|coined)\b|(?:is|are) defined as\b|is the (?:term|name) for\b|"
        r"(?:is|are) used to (?:refer to|describe)\b)|[\"”]\w[^\"”]{0,40}[\"”],? means\b|\bshall mean\b",
        (
            "Caulking refers to the sealing of joints between planks.",
            '"Account" means the record that we keep of you.',
            "Here leap is a term used by bell ringers.",
        ),
        ("She refers to him as a friend.", "He means that it rained.", "Nobody referred to the old rule."),
    ),
    _rule(
        "Biography",
        rf"\([^()]{{0,120}}\b(?:[Bb]orn|née|b\.)|"
        rf"\([^()]{{0,60}}\b1[0-9]{{3}} ?[–—-] ?[^()]{{0,40}}[12][0-9]{{3}}[^()]{{0,40}}\)"
        rf"(?:,[^.;]{{1,80}},)? (?:was|is)\b|\b(?:was|were) born (?:in|on|to|at|near|into|around|about|as)\b|"
        rf"^(?:He|She) (?:is|was) (?:an?|the|one of)\b|"
        rf"^(?:[A-Z][\w.'’-]*,? ){{1,6}}(?:\([^()]{{0,160}}\),? |\w+ \w+ as [^,.]{{1,60}}, )?(?:is|was) "
        rf"(?:an?|the) (?:[\w'’/-]+,? ){{0,7}}?{_PERSON}",
        (
            "Ann Lee (born 3 May 1960) is an American actress.",
            "Bob Moss was a Welsh painter and engraver.",
            "She was born in a lighthouse.",
        ),
        (
            "The idea was born of despair.",
            "The Painter is a 1931 play about an engraver.",
            "Dark Harbour is a 1990 boxer drama film.",
            "Oakham Clinic is a general hospital.",
            "The old bridge (1820–1901) carried the mail.",
        ),
    ),
    _rule(
        "Description",
        rf"^(?!{_POINTER})(?:(?:[\"“'(]?[A-Z0-9][\w.'’\"”&:!-]*|of|the|in|and|for|at|on|de|la|or|to|a|an)"
        rf"[,:]? ){{1,12}}"
        rf"(?:\([^()]{{0,160}}\),? |[^,.;]{{1,80}}, ){{0,3}}(?:is|are|was|were) (?:an?|the|one of)\b",
        (
            "The Blue Lantern is a 1965 novel by Ann Lee.",
            "Harrowgate, also called Upper Harrow, is a market town.",
            "Tinted Glass is a band from Tulsa.",
        ),
        ("In 1901 the mill was the first to close.", "It was the rain."),
    ),
    _rule(
        "Comparison",
        r"(?i:^unlike\b|, unlike\b|\b(?:(?:in|by) (?:contrast|comparison)|whereas|compared (?:to|with)|as opposed to|"
        r"on the other hand|similar(?:ly)? to|(?:differ|differs|differed) from|difference between|"
        r"(?:more|less|fewer|larger|smaller|longer|shorter|older|younger|higher|lower|taller|faster|slower|"
        r"better|worse|greater|cheaper|stronger|weaker|bigger) (?:\w+ ){0,2}than (?!\d|one\b|two\b|half\b|ever\b|"
        r"\w+ (?:years|percent)))\b)",
        (
            "Unlike the Rhine, the Danube flows east.",
            "Copper is softer, whereas bronze holds an edge.",
            "The north tower is taller than its twin.",
        ),
        (
            "More than 300 people came.",
            "In contrasting colours the doors stood open.",
            "He would rather read than walk.",
        ),
    ),
    _rule(
        "Example",
        r"(?i:\bfor (?:example|instance)\b|\be\.g\.|\b(?:an|another|one|good|notable) examples? (?:of|is|was)\b|"
        r"\bexamples? (?:include|of)\b|\bto illustrate\b|(?<!^)\bsuch as\b|\bincluding,? but not limited to\b)",
        ("Noble gases, for example neon, rarely react.", "Drinks such as tea were taxed."),
        ("He set an example.", "It was such a day as he liked.", "The instance was closed for repairs."),
    ),
    _rule(
        "Supporting_Evidence",
        r"(?i:\baccording to\b(?! (?:plan|the rules|custom|taste|need)\b)|"
        r"\b(?:(?:this|these|our|the|a|an|one|two|several|many|most|recent|present|previous|cohort|case-control) "
        r"(?:[\w-]+ ){0,2})?(?:study|studies|trials?|surveys?|experiments?|meta-analys[ie]s) "
        r"(?:\w+ ){0,2}(?:found|find|show|shows|showed|suggest|suggests|suggested|indicate|indicated|report|"
        r"reported|reports|examined|investigated|evaluated|assessed|compared|determined|tested|was|were|has|have|of|on|in)\b|"
        r"\bresearch(?:ers)? (?:\w+ ){0,2}(?:found|find|show|shows|showed|suggest|suggests|indicate|indicates|"
        r"into|on)\b|"
        r"\b(?:evidence|data|results|findings|estimates) (?:\w+ ){0,2}(?:that|show|shows|suggest|suggests|"
        r"indicate|indicates|from|for|of)\b|"
        r"\b(?:it|we|they|he|she|authors|scientists) (?:\w+ ){0,1}(?:found|showed|shown|observed|measured|"
        r"reported) that\b|"
        r"\bwe (?:\w+ ){0,1}(?:investigated|examined|evaluated|assessed|studied|tested|measured|determined|compared|"
        r"conducted|analy[sz]ed|report)\b|\bwas (?:investigated|examined|evaluated|assessed|measured|determined)\b|"
        r"\b(?:methods|results|findings):)",
        (
            "According to the harbour master, the tide was late.",
            "A survey of 40 farms found fewer bees.",
            "We measured the peak again.",
        ),
        (
            "Everything went according to plan.",
            "He kept the data in a drawer.",
            "The studious boy was tired.",
            "They found the key.",
        ),
    ),
    _rule(
        "Regulation",
        r"(?i:\b(?:must(?! have\b|-| be\b (?:tired|mad|joking))|shall(?! we\b)|"
        r"(?:is|are) (?:not |strictly |hereby )?(?:permitted|prohibited|forbidden|required|obliged|entitled|allowed)|"
        r"(?:has|have|reserves?) the right to|may not|we will (?:not|only|never)|do(?:es)? not (?:share|sell|rent|"
        r"disclose|collect|knowingly)|(?:you|users|members|tenants|visitors) (?:may|should|agree|can (?:choose|"
        r"opt|request|access|ask|review))|(?:we|they) may (?:use|share|"
        r"disclose|collect|also|provide|transfer|send|release))\b)",
        (
            "Tenants must give notice in writing.",
            "Dogs are not permitted on the pier.",
            "We may share your address with the carrier.",
        ),
        (
            "She must have missed the train.",
            "It is a must-see.",
            "Shall we dance, he said.",
            "He had no right of way.",
        ),
    ),
    _rule(
        "Procedure",
        rf"^(?i:(?:step \d+[.:]? ?|\d{{1,2}}[.)] )?(?:please |then |next,? |first,? |finally,? |now |"
        rf"to [^,.]{{3,80}}, (?:please |you (?:can|should|need to) |simply )?|if [^,.]{{3,100}}, (?:please |then )?)?"
        rf"{_VERB}\b(?! (?:of|freedom|is|was|are|were|has|had)\b))"
        rf"|\b(?i:please (?:contact|visit|see|click|send|email|call|refer|note|read)|"
        rf"by (?:clicking|visiting|going to|contacting|selecting|sending|pressing)|how to [a-z]+)\b",
        (
            "Press the red button twice.",
            "To stop our letters, please contact the office.",
            "Step 2: Pour the wax into the mould.",
        ),
        (
            "Press freedom is old.",
            "Call was a hamlet.",
            "Use of the hall is free.",
            "Opening the lid took an hour.",
        ),
    ),
    _rule(
        "Statistic",
        r"(?i:\b\d[\d,.]*\s?(?:%|percent\b|per cent\b)|[$€£]\s?\d|\b\d[\d,.]* (?:million|billion|trillion)\b|"
        r"\bpopulation (?:density )?(?:of|was|is)\b|\b(?:average|median|mean|total|rate|"
        r"number) (?:\w+ ){0,3}(?:of|was|is) "
        r"(?:about |around |over )?\d)",
        ("Sales rose 5 % last year.", "The population was 926 at the census.", "It cost $40 million."),
        ("Room 2187 is empty.", "The number of the house is faded.", "A mean old man lived there."),
    ),
    _rule(
        "Background",
        rf"(?i:\b(?:originally|historically|traditionally|formerly|previously|in the (?:early|mid|late)\b|"
        rf"(?:in|by|during|of) the (?:\d\d?(?:st|nd|rd|th)|[a-z]+th) century|during the|at the time|at that time|"
        rf"(?:founded|established|built|created|introduced|opened|released|published|launched) (?:in|on|by)|"
        rf"(?:date|dates|dated|dating) (?:back )?(?:to|from)|years? (?:earlier|later|before|ago)|used to be)\b)|"
        rf"\b(?:[Ii]n|[Ss]ince|[Bb]y|[Uu]ntil|[Ff]rom|[Aa]fter|[Bb]efore|[Dd]uring|[Oo]f|{_MONTH}|"
        rf"{_MONTH} \d{{1,2}},) (?:1[0-9]|20)\d\d\b",
        ("It opened in 1987.", "Historically, salt came by barge.", "On 4 May 1902 the mill burned."),
        ("Room 2187 is empty.", "The original is lost.", "She ran 1500 metres."),
    ),
)
ROLES = tuple(dict.fromkeys([rule.role for rule in RULES] + [DEFAULT_ROLE]))


def role(text: str) -> str:
    """The rhetorical role of a passage or sentence."""
    for sentence in sentences(text[:_LONGEST])[:OPENING]:
        for rule in RULES:
            if rule.pattern.search(sentence):
                return rule.role
    return DEFAULT_ROLE


ROLE = Tag(
    lambda given: [facts.role for facts in given.facts], "ROLE", values=ROLES, ideal="Supporting_Evidence"
)
