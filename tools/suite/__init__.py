"""The suite of docs/performance.md: what is measured, how, and what is said of it."""
