"""Measurements outside of the matrix: gradients, where a LoRA acts, the shortcut's fidelity, what steps cost."""
