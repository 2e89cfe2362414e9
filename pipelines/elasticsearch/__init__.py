"""All that talks to an Elasticsearch cluster: reading the log and candidates, loading, publishing back."""
