"""The state of record: the Parquet schemas and the folder that holds them."""
