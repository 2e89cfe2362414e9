"""From the events of a log to queries, on Beam."""
