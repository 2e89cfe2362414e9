"""`python -m pipelines.cli`, which torchrun starts."""

from pipelines.cli import main

main()
