"""Measures of how far two nights differ, and the thresholds that warn or hold."""
