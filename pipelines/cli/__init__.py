"""The command line, one file a command; `main` is the entry point of `nightrank`."""

from pipelines.cli.app import main

__all__ = ["main"]
