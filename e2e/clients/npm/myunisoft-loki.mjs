// A client that reads, and prints what it got.
import { GrafanaApi } from '@myunisoft/loki'

const { Loki } = new GrafanaApi({ remoteApiURL: process.env.GATEWAY })
const query = '{app="sdk"}'
console.log(JSON.stringify({
  logs: (await Loki.queryRange(query, { start: '2h', limit: 10 })).logs,
  parsed: (await Loki.queryRange(query, { start: '2h', pattern: '<verb> <path> <status>' })).logs,
  streams: (await Loki.queryRangeStream(query, { start: '2h' })).streams,
  metrics: (await Loki.queryRangeMatrix('sum by (app) (count_over_time({app="sdk"}[3h]))', { start: '1m' })).metrics.map(m => [m.labels, m.values.at(-1)[1]]),
  values: await Loki.labelValues('app', { start: '2h' }),
  labels: await Loki.labels({ start: '2h' }),
  series: await Loki.series(query)
}))
