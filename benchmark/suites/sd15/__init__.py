"""Stable Diffusion 1.5 with Hyper-SD's shortcut, the published rewards and their prompts."""
