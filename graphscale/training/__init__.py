"""Growth inside a training loop."""
