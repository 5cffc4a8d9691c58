"""What selects while the model trains: one file a policy; the file's name is what users type."""
