"""Files of integer parameters that hardware tools read: arrays of codes to bytes, and back."""
