"""Segments: sets of profiles, kept true as facts arrive and time goes by."""
