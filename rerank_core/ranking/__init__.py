"""From logits to the final order: fusion, calibration, the cascade, evidence."""
