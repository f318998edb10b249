"""Files as they are written: where they may go, what goes into them, how they get their names. Knows no operation."""
