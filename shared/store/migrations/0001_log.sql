-- One row a line. Within the partition of a day the hour comes before the stream: a query of some hours
-- reads only those, and a stream's lines of an hour still stand together, which is what compresses them.
-- (toHour, unlike toStartOfHour, does not wrap around outside of 1970 to 2106.)
-- The deduplication window counts the parts of inserts, one a day that an insert touches; it has to be far
-- above what can be in flight between an insert and its repetition.
-- Granules are small: of the lines of a stream in an hour, the fewer lines of its neighbors are decompressed with them.
-- Rows come in by sequence, so those of a few granules that lie together have sequences that do: the index lets
-- rows be found by where they came from.
CREATE TABLE IF NOT EXISTS {{.Database}}.log{{.Local}}{{.OnCluster}}
(
    tenant_id LowCardinality(String),
    stream_id UInt64,
    timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stream    LowCardinality(String),
    labels    Map(String, String) ALIAS JSONExtract(stream, 'Map(String, String)'),
    label     Array(String) ALIAS arrayMap((name, value) -> concat(name, ':', value), mapKeys(labels), mapValues(labels)),
    msg       String CODEC(ZSTD(1)),
    metadata  Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    wal_shard UInt16 CODEC(ZSTD(1)),
    wal_seq   UInt64 CODEC(Delta(8), ZSTD(1)),
    wal_index UInt32 CODEC(Delta(4), ZSTD(1)),
    INDEX wal_seq wal_seq TYPE minmax GRANULARITY 1
)
ENGINE = {{.Engine "MergeTree"}}
PARTITION BY toYYYYMMDD(timestamp)
ORDER BY (tenant_id, toHour(timestamp), stream_id, timestamp)
SETTINGS
    index_granularity = 2048,
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1;
{{- if .Cluster}}

-- What people and Grafana ask, on any server.
CREATE TABLE IF NOT EXISTS {{.Database}}.log{{.OnCluster}} AS {{.Database}}.log{{.Local}}
ENGINE = Distributed({{.Cluster}}, {{.Database}}, log{{.Local}}, wal_shard);
{{- end}}
