"""What is scored: units of documents, and more candidates by a second search."""
