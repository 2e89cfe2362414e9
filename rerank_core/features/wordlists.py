"""Words that are no names though they may look like one, and abbreviations of names."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


# Words that are capitalised at a sentence's start or in a heading, and are no names.
COMMON = word_set(
    """
    a an the this that these those it its he she they we i you his her their our my your us me him them who
    whom whose which what when where why how is are was were be been being do does did has have had can
    could will would shall should may might must not no yes and or but nor so yet if then than though
    although while whereas because since after before during until unless as at by for from in into of off
    on onto out over to under up with within without about above across against along among around behind
    below beneath beside between beyond despite down except inside like near outside past per through
    throughout toward towards via also both each either every few many more most much neither none one
    other others several some such two three four five six seven eight nine ten first second third last
    next there here today now later however therefore thus hence moreover furthermore meanwhile
    nevertheless instead finally originally eventually early another all any according due based founded
    born built located known named called situated established published released formed created made
    directed written played produced starring following including given having using only just even
    still again once name list tell find give show describe explain compare monday tuesday wednesday
    thursday friday saturday sunday january february march april may june july august september october
    november december
    """
)
# Names that are ordinary words as well: in a query without capitals they are the word.
WORDS_TOO = word_set(
    """
    general mark bill will art rose grace hope faith joy grant frank rich pat sue drew chase hunter mason
    baker cook king queen prince page young brown green white black gray long short strong wood stone field
    hill rivers bush lake banks park parks bridge church house home street road city town island country
    state world earth sun moon star stars time life love day night year war peace power law order police
    band doors cars eagles office family friends kids game games ball team play music song film book story
    news people men women man woman girl boy child doctor nurse teacher judge president company bank
    apple amazon target gap shell visa ford time fortune oracle windows word access office teams zoom
    polish turkey china bath reading mobile nice orange date data help service services policy privacy
    heart blood cancer virus food water wine beer gold silver iron fire wind rain snow winter summer spring
    fall act bible congress senate army navy board center centre college school university court crown
    """
)
# Places with one word for a name: "Georgia" is not short for "Ann Georgia" without a recogniser that says PER.
PLACES = word_set(
    """
    angola congo rwanda somalia namibia tibet kosovo honduras guatemala nicaragua
    afghanistan africa alabama alaska albania algeria america amsterdam arizona arkansas asia athens
    atlanta australia austria baltimore bangladesh barcelona belgium berlin bolivia boston brazil britain
    brussels bulgaria cairo california cambridge canada chicago chile china colombia colorado connecticut
    croatia cuba cyprus dallas delaware denmark denver detroit dublin ecuador egypt england estonia
    ethiopia europe finland florida france geneva georgia germany ghana greece hawaii houston hungary
    iceland idaho illinois india indiana indonesia iowa iran iraq ireland israel istanbul italy jamaica
    japan jerusalem jordan kansas kentucky kenya korea kuwait latvia lebanon libya lisbon liverpool london
    louisiana madrid maine malaysia malta manchester maryland massachusetts melbourne mexico miami michigan
    milan minnesota mississippi missouri montana morocco moscow munich myanmar nebraska nepal netherlands
    nevada nigeria norway ohio oklahoma ontario oregon oxford pakistan palestine panama paris pennsylvania
    peru philadelphia philippines phoenix poland portugal prague quebec queensland romania rome russia
    scotland seattle serbia singapore slovakia slovenia spain stockholm sudan sweden switzerland sydney
    syria taiwan tasmania tennessee texas thailand tokyo toronto tunisia turkey uganda ukraine utah
    venezuela venice vermont victoria vienna vietnam virginia wales warsaw washington wisconsin wyoming
    yemen york zealand zambia zimbabwe
    """
)
# Last words of names of things, and peoples: in another passage they can mean something else.
NO_SURNAMES = word_set(
    """
    academy act africans age agency air airlines airport album alliance american americans arena army asian
    assembly association australian authority award awards base battle bay british brigade building bulls
    bureau cathedral catholic catholics cemetery championship championships channel chinese christian church
    circuit civil club code commission committee company conference congress constitution corps council
    county court creek cross cup desert dictionary diet district division doctor doctors dutch dynasty
    earthquake eastern empire english entertainment era europe european expedition express federation
    festival fields final finals fleet force forces forest forum foundation french front fund garden gardens
    german gold gothic government governor grand greek group guard hall harbour highway hospital hotel
    hurricane indian indians industries institute international irish islam islamic italian japanese jewish
    jews journal kingdom korean language latin league library lion lions liga line magazine mall manager
    market minister ministry mission mountain mountains movement museum muslim national nations native
    northern office olympics open opera orchestra order organization parliament party pass peninsula period
    plan plaza point port portuguese premier prize program project province protest province public radio
    railway railways range records region reich republic reserve revolution river road rock roman romans
    route royal royale russian scottish sea senate series service show society southern soviet spanish
    special square stadium station studies studio studios supreme swedish system technology television
    temple territory theater theatre theory tibetan times tour tower town transactions treaty tribune trophy
    trust turkish tv union unit valley village wall warriors western winds world
    """
)
# A name that starts with one of these is no person's, and its last word no surname: "New York", "Lake Michigan".
NOT_FIRST_NAMES = word_set(
    """
    new old north south east west northern southern eastern western central upper lower great greater lake
    mount mt fort port cape san santa los las el saint st river bay hotel miss university royal national
    international american british french german united republic battle treaty grand super big little
    background conclusion conclusions summary objective methods results purpose figure table chapter
    radio air bank city club college school house castle us uk european federal state states
    """
)
# In these capitals they mean this in any passage; "us", "Us" and "Who" do not, and "LA" or "PR" are ambiguous.
# Great Britain is not written out: for three centuries it was not the United Kingdom.
ABBREVIATIONS = {
    "US": "united states",
    "USA": "united states",
    "UK": "united kingdom",
    "EU": "european union",
    "UN": "united nations",
    "UAE": "united arab emirates",
    "USSR": "soviet union",
    "PRC": "china",
    "NYC": "new york city",
    "DC": "washington dc",
    "WHO": "world health organization",
    "NATO": "north atlantic treaty organization",
    "FBI": "federal bureau of investigation",
    "CIA": "central intelligence agency",
}
ABBREVIATED_PREFIXES = word_set("US USA UK EU UN")  # also where a longer name starts with them: "U.S. Army"
ABBREVIATIONS_IN_ANY_CASE = {  # no words of their own, so that people may type them without capitals
    short.casefold(): full for short, full in ABBREVIATIONS.items() if short not in ("US", "UN", "WHO", "DC")
}
LONG_FORMS = {
    "united states of america": "united states",
    "america": "united states",
    "union of soviet socialist republics": "soviet union",
    "people republic of china": "china",
    "united kingdom of great britain and northern ireland": "united kingdom",
    "world health organisation": "world health organization",
}
