"""Ways to make a network faster without labels, compared at equal measured latency."""
