"""Reads and writes remote files through fsspec: objects of cloud stores, and models and data on Azure Machine Learning."""
