"""What the commands share in a terminal: flags, pictures named, output, progress, and the clock."""
