"""The page of a run that people read in the morning."""
