"""Every TOML as frozen dataclasses."""
