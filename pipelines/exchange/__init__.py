"""Published runs in the formats of other tools, and training data of other tools as a run that training reads."""
