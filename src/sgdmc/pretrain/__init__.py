"""How the shipped model is made: prior, training, evaluation."""
