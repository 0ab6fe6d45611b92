"""What a fit tells about its rows, its groups and itself: residuals, influence, summaries, checks."""
