"""Pictures from arrays: every function draws on one axes and returns it. matplotlib is imported when one is drawn."""
