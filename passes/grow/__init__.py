"""Fill the target network with the weights of a trained pre-train network."""
