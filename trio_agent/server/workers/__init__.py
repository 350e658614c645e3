"""Several processes that serve the same sockets: a supervisor, its workers, and how they talk."""
