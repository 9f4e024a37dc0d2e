"""The cache: results of stages that are kept between sweeps."""
