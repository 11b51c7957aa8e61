"""What docs/recipes shows, to be run again; each says what it needs."""
