"""A run's curves for other programs: TensorBoard, Weights & Biases. Rank 0 alone writes."""
