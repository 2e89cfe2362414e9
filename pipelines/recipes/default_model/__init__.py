"""How the bi-encoder that ships was made: `python -m pipelines.recipes.default_model`."""
