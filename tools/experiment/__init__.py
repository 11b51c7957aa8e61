"""The paper's experiment: what pruning without constraints gains in accuracy and in latency."""
