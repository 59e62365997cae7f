// Logs by way of the transport, as protobuf or as JSON.
import winston from 'winston'
import LokiTransport from 'winston-loki'

const transport = new LokiTransport({
  host: process.env.GATEWAY, headers: { 'X-Scope-OrgID': process.env.TENANT }, json: process.env.ENCODING === 'json',
  labels: { app: 'shop' }, replaceTimestamp: false, gracefulShutdown: false, interval: 60,
  format: winston.format.printf(({ message }) => message), onConnectionError: console.error
})
const logger = winston.createLogger({ level: 'debug', transports: [transport] })
logger.info('one', { timestamp: '2026-04-05T06:07:08.123Z' })
logger.debug('two ü', { timestamp: '2026-04-05T06:07:08.124Z', n: 7, labels: { part: 'till' } })
await transport.close()
