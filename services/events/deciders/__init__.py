"""The rules of what people decide about collection, a file per aggregate."""
