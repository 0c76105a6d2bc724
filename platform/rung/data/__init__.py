"""From a labelled structure to the batch a model computes on: record, graph, shard, data set, partition, batch."""
