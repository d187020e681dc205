"""What the stages read: audio, token sets, generated audio."""
