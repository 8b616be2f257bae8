"""Steps: frozen values for one thing asked of the kernel each; how they are executed, undone, flattened and
described."""
