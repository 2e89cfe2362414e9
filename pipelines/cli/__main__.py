"""`python -m pipelines.cli`, which torchrun starts."""

from pipelines.cli.app import main

main()
