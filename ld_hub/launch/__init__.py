"""From a typed command to a trainer that runs: flags, commands, start, teachers."""
