"""What is kept between sweeps."""
