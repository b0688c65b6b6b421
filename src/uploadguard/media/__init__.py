"""Reads uploads: sniffing, limits from the header, and decoding to canonical pixels.
Knows nothing of hash lists.
"""
