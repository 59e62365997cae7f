// Logs by way of the transport in its worker.
import pino from 'pino'

const transport = pino.transport({
  target: 'pino-loki',
  options: {
    host: process.env.GATEWAY, headers: { 'X-Scope-OrgID': process.env.TENANT },
    labels: { app: 'shop' }, propsToLabels: ['part'], batching: { interval: 60 }
  }
})
let time = 1775369228123
const logger = pino({ base: { hostname: 'web-1' }, timestamp: () => `,"time":${time}` }, transport)
logger.info('one')
time++
logger.error({ meta: { traceId: 'abc', n: 7 }, part: 'till' }, 'two ü')
transport.end()
