"""The parts of the manual that are made from the program: `make generate` writes them, a test holds them."""
