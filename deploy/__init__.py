"""Running the trainer as a service; knows how it is started and what its exit codes mean, and imports nothing of it."""
