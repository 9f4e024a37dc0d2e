"""What lies on Azure Machine Learning: its addresses, its workspaces, and the files behind them through fsspec."""
