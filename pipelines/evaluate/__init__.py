"""Judged sets: `nightrank evaluate`, `fuse` and `calibrate`."""
