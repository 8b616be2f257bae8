"""runc's place: executes plans on the real kernel, with bell for the container's side."""
