"""Erasing people: what is theirs is found, overwritten, registered, and its bytes are gone."""
