"""A process: what it is told, what it tells, how it runs and is operated."""
