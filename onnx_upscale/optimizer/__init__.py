"""From a model and masks to an equal and faster model, in five verbs.

`load` reads, `analyze` finds what is coupled, known and needed, `plan` decides, `apply` emits and
`verify` compares. Each takes the immutable result of the one before and knows nothing of those
after.
"""
