"""Why less leaves than masks allow, and why models are not exported: what a person found out."""

REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = ()
"""A pattern of names, the sides of the masks, and the reason; the first that fits counts."""

NOT_EXPORTED: tuple[tuple[str, str], ...] = ()
"""A pattern of messages, and what they say in short."""
