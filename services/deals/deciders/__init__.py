"""The rules of each aggregate of deals."""
