"""The report on a comparison: verdict, sections, pictures, and files."""
