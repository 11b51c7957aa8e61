"""The parts of `sweep.py`: architectures, their layers, the check of a result, and the bound."""
