"""Graph passes: each file holds one step of shrink, grow or accelerate; none knows torch."""
