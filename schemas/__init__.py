"""What flows through a night and what it publishes. Imports pyarrow alone."""
