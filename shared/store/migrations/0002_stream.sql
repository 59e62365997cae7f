-- One row a stream, so that looking up labels never reads the lines.
CREATE TABLE IF NOT EXISTS {{.Database}}.stream{{.Local}}{{.OnCluster}}
(
    tenant_id  LowCardinality(String),
    stream_id  UInt64,
    stream     SimpleAggregateFunction(any, String),
    first_seen SimpleAggregateFunction(min, DateTime64(9, 'UTC')),
    last_seen  SimpleAggregateFunction(max, DateTime64(9, 'UTC')),
    labels     Map(String, String) ALIAS JSONExtract(stream, 'Map(String, String)')
)
ENGINE = {{.Engine "AggregatingMergeTree"}}
ORDER BY (tenant_id, stream_id)
SETTINGS
    fsync_after_insert = 1,
    fsync_part_directory = 1;

-- Times are compared as numbers: of a DateTime64, ClickHouse 26.1 to 26.7 compile min and max, once they have been
-- used a few times, into ones that take a time before 1970 for the latest of all.
CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.stream_of_log{{.OnCluster}} TO {{.Database}}.stream{{.Local}} AS
SELECT
    tenant_id,
    stream_id,
    any(toString(log.stream)) AS stream,
    fromUnixTimestamp64Nano(min(toUnixTimestamp64Nano(timestamp)), 'UTC') AS first_seen,
    fromUnixTimestamp64Nano(max(toUnixTimestamp64Nano(timestamp)), 'UTC') AS last_seen
FROM {{.Database}}.log{{.Local}} AS log
GROUP BY tenant_id, stream_id;
{{- if .Cluster}}

CREATE TABLE IF NOT EXISTS {{.Database}}.stream{{.OnCluster}} AS {{.Database}}.stream{{.Local}}
ENGINE = Distributed({{.Cluster}}, {{.Database}}, stream{{.Local}}, stream_id);
{{- end}}
