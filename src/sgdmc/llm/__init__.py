"""Laws of the next state, read off a causal language model's logits.

Files, each importing only from those before it: `forest` (continuations of one text), `context`,
`attention`, `packed` and `batched` (their evaluation), `model` (which model reads), `tokens` (how
states are written), `tree` (from answers to rows), `series` (a series as a text), `reader` (laws of
the next state), `joint` (several coordinates).
"""
