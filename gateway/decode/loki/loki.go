// Package loki decodes Loki's push protocol into a logs.Batch: the JSON body and the snappy-compressed
// protobuf that clients send to POST /loki/api/v1/push.
// https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
//
// Every line passes through here, so both decoders are written by hand: one pass over the body, lines
// straight into the batch, no object and no allocation of their own per entry.
//
// What the two have in common: entries are appended to the batch in the order they came; a stream without
// entries adds nothing to it, but its labels must be good; label names and values are held to
// logs.Canonical; lines and metadata are bytes and kept as they came, valid UTF-8 or not. An error is a
// *decode.Error or a *decode.TooLargeError. After one the batch holds a part of the push and has to be
// discarded (logs.Batch.Reset).
package loki
