"""Training: data, prompts, losses, the loop. Nothing of it is needed to predict."""
