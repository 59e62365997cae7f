// Sends a batch of events, and prints the answer.
import splunk from 'splunk-logging'

const logger = new splunk.Logger({ token: 'token', url: process.env.GATEWAY, maxBatchCount: 0 })
logger.requestOptions.headers = { 'tenant-id': process.env.TENANT }
logger.send({
  message: { temperature: '70F' }, severity: 'error',
  metadata: { time: 1775369228.123, host: 'farm.local', source: 'coop', sourcetype: 'httpevent', index: 'main' }
})
logger.send({ message: 'two ü', metadata: { time: 1775369229.123 } })
logger.flush((error, response, body) => console.log(error, response?.statusCode, JSON.stringify(body)))
