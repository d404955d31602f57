"""What `experiments.live` shows: a training that can be watched, and the server of its page."""
