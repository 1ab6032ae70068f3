"""Laws of the next state, read off a causal language model's logits."""
