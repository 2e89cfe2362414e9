"""The tags of a query's candidates."""
