"""dockerd's place: containers, images, logs, the keeper; owns the one database."""
