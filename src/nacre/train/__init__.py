"""Training, the home of torch: recipe and recordings in, a model bundle out."""
