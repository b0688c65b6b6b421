"""The native kernel, written in C11: PDQ, Hamming look-up and exact look-up. Its sources live beside this file."""
