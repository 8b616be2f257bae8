"""Content by digest, layers, and the snapshots that containers stand on. Hands out mounts as values; mounts nothing."""
