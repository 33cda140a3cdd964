"""Graph passes: each file holds one step of shrink, grow or accelerate, and knows nothing of torch."""
