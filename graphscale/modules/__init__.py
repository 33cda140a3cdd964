"""Shrink and grow torch modules, keeping their class and their state-dict keys."""
