"""Getting artifacts to devices."""
