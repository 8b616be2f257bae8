"""The verbs, a module each with `main(parsed) -> exit code`, imported only when called."""
