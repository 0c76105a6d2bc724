"""Raw data sets in, sharded LMDB out: readers, labels, filters, the split by material, and the check of the result."""
