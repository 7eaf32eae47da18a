"""The views of deals: their tables, their folds, their questions."""
