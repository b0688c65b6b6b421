"""Files at rest, whatever is in them: keys, encryption, and what makes a write last through a power failure."""
