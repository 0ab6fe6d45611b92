"""What is done with a fit: predictions, conditional covariances, simulated responses, updates."""
