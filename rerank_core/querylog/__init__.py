"""From the records of a query log to distinct queries: parsing, privacy, aggregation, the click model."""
