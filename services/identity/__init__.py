"""Identity: which identifiers are one person, and the profile that follows."""
