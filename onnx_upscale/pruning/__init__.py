"""pruning: which channels to remove, by what that costs and what it saves."""
