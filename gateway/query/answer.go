package query

import (
	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/engine/series"
)

// result appends the answer to a log or a metric query: the result, what it took, and warnings.
func (w *writer) result(kind string, categorized bool, warnings []string, stats *engine.Stats, result func()) {
	w.raw(`{"status":"success",`)
	if len(warnings) > 0 {
		w.raw(`"warnings":`)
		w.texts(warnings)
		w.raw(",")
	}
	w.raw(`"data":{"resultType":"`)
	w.raw(kind)
	w.raw(`","result":`)
	result()
	w.flags(categorized)
	w.raw(`,"stats":`)
	w.stats(stats)
	w.raw("}}")
}

// metric appends the answer to a metric query.
func (w *writer) metric(m *engine.Metric, instant bool) {
	kind, result := "matrix", func() { w.matrix(&m.Value) }
	switch {
	case instant && m.IsScalar:
		kind, result = "scalar", func() { w.scalar(&m.Value) }
	case instant:
		kind, result = "vector", func() { w.vector(&m.Value) }
	}
	w.result(kind, false, m.Warnings, &m.Stats, result)
}

// matrix appends series with all their points.
func (w *writer) matrix(v *series.Value) {
	w.raw("[")
	for i, s := range v.Series {
		w.comma(i)
		w.raw(`{"metric":`)
		w.labels(s.Labels)
		w.raw(`,"values":[`)
		for j, p := range s.Points {
			w.comma(j)
			w.point(v.Grid.At(p.Index), p.Value)
		}
		w.raw("]}")
	}
	w.raw("]")
}

// vector appends the one point of each series.
func (w *writer) vector(v *series.Value) {
	w.raw("[")
	n := 0
	for _, s := range v.Series {
		if len(s.Points) == 0 {
			continue
		}
		w.comma(n)
		n++
		w.raw(`{"metric":`)
		w.labels(s.Labels)
		w.raw(`,"value":`)
		w.point(v.Grid.At(s.Points[0].Index), s.Points[0].Value)
		w.raw("}")
	}
	w.raw("]")
}

// scalar appends the one point of a number.
func (w *writer) scalar(v *series.Value) {
	p := v.Series[0].Points[0]
	w.point(v.Grid.At(p.Index), p.Value)
}

func (w *writer) point(at int64, value float64) {
	w.raw("[")
	w.at(at)
	w.raw(",")
	w.value(value)
	w.raw("]")
}

// stats appends what a query took, in the places where Grafana and logcli look. The store is ClickHouse, the ingester what is not in it yet.
// What has no counterpart here, such as chunks and their caches, is 0.
func (w *writer) stats(s *engine.Stats) {
	perSecond := func(n uint64) uint64 {
		if s.Took <= 0 {
			return 0
		}
		return uint64(float64(n) / s.Took.Seconds())
	}
	lines := s.Rows + s.Unflushed
	w.raw(`{"summary":{"bytesProcessedPerSecond":`)
	w.count(perSecond(s.Bytes))
	w.raw(`,"linesProcessedPerSecond":`)
	w.count(perSecond(lines))
	w.raw(`,"totalBytesProcessed":`)
	w.count(s.Bytes)
	w.raw(`,"totalLinesProcessed":`)
	w.count(lines)
	w.raw(`,"execTime":`)
	w.seconds(s.Took)
	w.raw(`,"queueTime":`)
	w.seconds(s.Queued)
	w.raw(`,"subqueries":0,"totalEntriesReturned":`)
	w.count(s.Returned)
	w.raw(`,"splits":0,"shards":0,"totalPostFilterLines":`)
	w.count(s.Lines)
	w.raw(`,"totalStructuredMetadataBytesProcessed":0},"querier":{"store":`)
	w.store(s.Bytes, s.Rows, s.Lines)
	w.raw(`},"ingester":{"totalReached":0,"totalChunksMatched":0,"totalBatches":0,"totalLinesSent":`)
	w.count(s.Unflushed)
	w.raw(`,"store":`)
	w.store(0, s.Unflushed, 0)
	w.raw(`},"cache":{`)
	for i, cache := range [...]string{"chunk", "index", "result", "statsResult", "volumeResult", "seriesResult", "labelResult", "instantMetricResult"} {
		w.comma(i)
		w.text(cache)
		w.raw(`:{"entriesFound":0,"entriesRequested":0,"entriesStored":0,"bytesReceived":0,"bytesSent":0,"requests":0,` +
			`"downloadTime":0,"queryLengthServed":0}`)
	}
	w.raw(`},"index":{"totalChunks":0,"postFilterChunks":0,"shardsDuration":0,"usedBloomFilters":false}}`)
}

// store appends what was read of one source.
func (w *writer) store(bytes, lines, kept uint64) {
	w.raw(`{"totalChunksRef":0,"totalChunksDownloaded":0,"chunksDownloadTime":0,"queryReferencedStructuredMetadata":false,` +
		`"chunk":{"headChunkBytes":0,"headChunkLines":0,"decompressedBytes":`)
	w.count(bytes)
	w.raw(`,"decompressedLines":`)
	w.count(lines)
	w.raw(`,"compressedBytes":0,"totalDuplicates":0,"postFilterLines":`)
	w.count(kept)
	w.raw(`,"headChunkStructuredMetadataBytes":0,"decompressedStructuredMetadataBytes":0},"chunkRefsFetchTime":0,"congestionControlLatency":0,` +
		`"pipelineWrapperFilteredLines":0}`)
}
