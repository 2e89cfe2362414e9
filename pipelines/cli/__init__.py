"""The command line, one file a command; `main` is the entry point of `nightrank`."""

from pipelines.cli import leaving

__all__ = ["main"]


def main() -> None:
    """Entry point of the `nightrank` command."""
    leaving.prepare()
    with leaving.at_the_end():
        from pipelines.cli.app import main as run  # a second of imports, in which Ctrl-C may come too

        run()
