"""The outcome of a night as monitoring reads it: Prometheus, JSON, a webhook."""
