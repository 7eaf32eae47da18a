"""The customer events: what people did, as sources sent it."""
