"""What scoring and named-entity recognition share: tokenisation, batches, sessions, devices."""
