"""From a model to logits."""
