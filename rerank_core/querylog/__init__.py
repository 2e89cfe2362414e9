"""From log events to queries: parsing, privacy, aggregation, the click model."""
