"""A hypernetwork for any checkpoint. `build.py` tells it; each of its stages is a file: faces, prepare, recognizers,
trainer."""
