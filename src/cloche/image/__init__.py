"""Images: load, save, pack, tag, look up."""
