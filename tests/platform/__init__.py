"""Other operating systems, as far as they can be played here; each is a program that runs one command."""
