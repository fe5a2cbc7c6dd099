"""The command line: `ld-hub VERB`, one module per verb, imported when it is called."""
