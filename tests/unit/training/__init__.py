"""The embedded model's training."""
