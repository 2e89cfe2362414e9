"""Real servers that the tests and benchmarks start for themselves, on this machine, without Docker."""
