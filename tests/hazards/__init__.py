"""What strangers' files, full disks and signals do to the whole command, row by row."""
