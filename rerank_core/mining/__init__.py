"""Labels and hard negatives."""
