"""Constant-step SGD as a Markov chain, read off a language model."""
