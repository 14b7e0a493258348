"""The command line: argv to the functions of the same names."""
