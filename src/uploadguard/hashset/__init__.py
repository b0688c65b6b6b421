"""The hash set: all active lists compiled for look-up, as immutable segments and numbered generations.
Knows nothing of pictures.
"""
