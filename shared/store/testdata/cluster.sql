-- One row a line. Within the partition of a day the hour comes before the stream: a query of some hours
-- reads only those, and a stream's lines of an hour still stand together, which is what compresses them.
-- (toHour, unlike toStartOfHour, does not wrap around outside of 1970 to 2106.)
-- The deduplication window counts the parts of inserts, one a day that an insert touches; it has to be far
-- above what can be in flight between an insert and its repetition.
-- Granules are small: of the lines of a stream in an hour, the fewer lines of its neighbors are decompressed with them.
-- Rows come in by sequence, so those of a few granules that lie together have sequences that do: the index lets
-- rows be found by where they came from.
CREATE TABLE IF NOT EXISTS logs.log_local ON CLUSTER `it's`
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
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

-- What people and Grafana ask, on any server.
CREATE TABLE IF NOT EXISTS logs.log ON CLUSTER `it's` AS logs.log_local
ENGINE = Distributed(`it's`, logs, log_local, wal_shard);

-- One row a stream, so that looking up labels never reads the lines.
CREATE TABLE IF NOT EXISTS logs.stream_local ON CLUSTER `it's`
(
    tenant_id  LowCardinality(String),
    stream_id  UInt64,
    stream     SimpleAggregateFunction(any, String),
    first_seen SimpleAggregateFunction(min, DateTime64(9, 'UTC')),
    last_seen  SimpleAggregateFunction(max, DateTime64(9, 'UTC')),
    labels     Map(String, String) ALIAS JSONExtract(stream, 'Map(String, String)')
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY (tenant_id, stream_id)
SETTINGS
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Times are compared as numbers: of a DateTime64, ClickHouse 26.1 to 26.7 compile min and max, once they have been
-- used a few times, into ones that take a time before 1970 for the latest of all.
CREATE MATERIALIZED VIEW IF NOT EXISTS logs.stream_of_log ON CLUSTER `it's` TO logs.stream_local AS
SELECT
    tenant_id,
    stream_id,
    any(toString(log.stream)) AS stream,
    fromUnixTimestamp64Nano(min(toUnixTimestamp64Nano(timestamp)), 'UTC') AS first_seen,
    fromUnixTimestamp64Nano(max(toUnixTimestamp64Nano(timestamp)), 'UTC') AS last_seen
FROM logs.log_local AS log
GROUP BY tenant_id, stream_id;

CREATE TABLE IF NOT EXISTS logs.stream ON CLUSTER `it's` AS logs.stream_local
ENGINE = Distributed(`it's`, logs, stream_local, stream_id);

-- A merge goes column by column, not only from eleven columns on: whatever it does not have to sort by, it passes on without
-- making rows of it. That is half the CPU of a merge, and less memory.
ALTER TABLE logs.log_local ON CLUSTER `it's` MODIFY SETTING vertical_merge_algorithm_min_columns_to_activate = 1;

