"""Laws of the next state, read off a causal language model's logits.

Files, each importing only from those before it: `forest` (continuations of one text), `packed`
(their evaluation), `model` (which model), `tokens` (how states are written), `tree` (from answers
to rows), `reader` (one coordinate), `joint` (several).
"""
