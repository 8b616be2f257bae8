"""Linux as typed Python: a module a concept, thin wrappers with the man pages' names, no policy."""
