// Logs by way of the SDK, which exports OTLP as JSON.
import { SeverityNumber } from '@opentelemetry/api-logs'
import { OTLPLogExporter } from '@opentelemetry/exporter-logs-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs'
import { ROOT_CONTEXT, trace } from '@opentelemetry/api'

const exporter = new OTLPLogExporter({
  url: process.env.GATEWAY + '/v1/logs', headers: { 'tenant-id': process.env.TENANT }, compression: 'gzip'
})
const provider = new LoggerProvider({
  resource: resourceFromAttributes({ 'service.name': 'shop', 'k8s.pod.name': 'shop-1' }),
  processors: [new BatchLogRecordProcessor({ exporter })]
})
const logger = provider.getLogger('till', '1.2.3')
const context = trace.setSpanContext(ROOT_CONTEXT, { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', traceFlags: 1 })
logger.emit({
  timestamp: [1778051289, 123456789], observedTimestamp: [1778051290, 1], severityNumber: SeverityNumber.WARN, severityText: 'WARN', body: 'order 4711 paid', context,
  attributes: { order: { id: 4711, by: { name: 'ü "' } }, items: ['tea', 2, null], raw: new Uint8Array([255, 0, 1]), paid: true, sum: 12.5, empty: '' }
})
logger.emit({ timestamp: [1778051290, 0], observedTimestamp: [1778051290, 0], body: { a: 'b', c: [1, true] } })
await provider.shutdown()
