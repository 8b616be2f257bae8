"""The command line: a table of verbs, a module a verb, imported only when called."""
