"""What is scored: the units of documents, and more candidates from second searches and vectors."""
