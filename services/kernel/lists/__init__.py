"""Lists: AIP-160 filters and keyset pages, compiled to SQL."""
