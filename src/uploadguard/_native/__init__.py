"""The native kernel, written in C11: PDQ reduction, Hamming look-up and exact look-up. Sources live beside this file.
"""
