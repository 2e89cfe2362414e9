"""Where Beam, Elasticsearch and the command line live: thin shells around rerank_core."""

__version__ = "0.1.0"
