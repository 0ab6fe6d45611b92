"""Reports: formatting only."""
