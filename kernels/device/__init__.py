"""What runs inside of the kernels, called by them."""
