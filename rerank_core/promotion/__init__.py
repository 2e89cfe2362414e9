"""The rules by which a candidate model is promoted or rejected."""
