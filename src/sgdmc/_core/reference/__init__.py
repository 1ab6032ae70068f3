"""Every kernel in plain NumPy: what the book quotes and what the parity tests compare with."""
