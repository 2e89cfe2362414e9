"""How the named-entity recogniser that ships was made: `python -m pipelines.recipes.entities`."""
