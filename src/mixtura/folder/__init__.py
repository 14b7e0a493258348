"""The run folder: all that the command line, the report and a colleague's machine share."""
