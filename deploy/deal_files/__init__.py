"""Files of deals: what `make import-deals` reads."""
