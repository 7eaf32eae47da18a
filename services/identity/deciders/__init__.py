"""The pure rules of identity beside those of verdicts, a file per aggregate."""
