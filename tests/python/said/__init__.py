"""What the transcripts say, a kind a module."""
