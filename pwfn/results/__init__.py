"""The folder of results, which is the record of a study: the schemas of its Parquet files, and how they are written."""
