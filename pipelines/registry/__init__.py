"""The registry: models with their lineage and state, in a folder or an object store."""
