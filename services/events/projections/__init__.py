"""The views of the events service, a file each: its tables, its fold, its questions."""
