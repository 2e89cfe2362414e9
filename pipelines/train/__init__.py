"""`nightrank train`: from published runs to a fine-tuned cross-encoder."""
