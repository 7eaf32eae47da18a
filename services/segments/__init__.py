"""Segments: which profiles belong together, kept current."""
