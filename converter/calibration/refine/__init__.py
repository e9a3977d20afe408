"""What goes beyond scales: corrected biases, chosen rounding."""
