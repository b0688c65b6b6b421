"""Web applications over the library: the review console. Each is imported only when it is used."""
