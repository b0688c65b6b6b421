"""Hash lists as they come from hotlines: one streaming reader for each format.
What is read here is compiled into the hash set elsewhere.
"""
