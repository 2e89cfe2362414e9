"""Measures, judgements, tests of significance."""
