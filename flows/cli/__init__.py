"""The ``knowrl`` command. Heavy libraries are imported by the commands that need them, so that the others are quick."""
