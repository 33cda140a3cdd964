"""Bring every model into one form before anything else looks at it."""
