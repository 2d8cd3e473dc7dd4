"""The parts of generate.py, one noun a module."""
