"""The embedded source: log files and a BM25 index on this machine, without a server."""
