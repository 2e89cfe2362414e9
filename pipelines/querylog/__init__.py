"""From the events of a query log to distinct queries, on Beam."""
