"""Engines: the mixed-model equations at one theta, behind one protocol."""
