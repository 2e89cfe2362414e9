"""From a trained candidate to the serving model: training step, gate, decision."""
