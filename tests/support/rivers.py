"""Five passages about rivers, for tests of the recipe of the default model."""

from __future__ import annotations

from pipelines.recipes.default_model.questions import SetPassage

RHINE = SetPassage(
    "rhine", "Rhine", "The Rhine rises in the Swiss Alps. It flows to the North Sea at Rotterdam."
)
DANUBE = SetPassage(
    "danube", "Danube", "The Danube rises in the Black Forest. It flows east to the Black Sea."
)
ELBE = SetPassage(
    "elbe", "Elbe", "The Elbe rises in the Giant Mountains and reaches the North Sea near Cuxhaven."
)
ALPS = SetPassage("alps", "Alps", "The Swiss Alps feed the Rhine and the Rhone.")
SEINE = SetPassage("seine", "Seine", "The Seine flows through Paris.")
CORPUS = {p.doc_id: p for p in (RHINE, DANUBE, ELBE, ALPS, SEINE)}
