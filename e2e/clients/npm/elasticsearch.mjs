// Indexes by way of helpers.bulk, and prints what of it was refused.
import { Client } from '@elastic/elasticsearch'

const client = new Client({ node: process.env.GATEWAY, headers: { 'tenant-id': process.env.TENANT } })
const info = await client.info()
const result = await client.helpers.bulk({
  datasource: [
    { '@timestamp': '2026-06-07T08:09:10.123456789Z', message: 'one', log: { level: 'error' }, service: { name: 'shop' }, tags: ['a', 'b'] },
    { '@timestamp': 'noon', message: 'no' },
    { '@timestamp': 1780819750124, message: 'two ü', took: 1.5 }
  ],
  onDocument: () => ({ create: { _index: 'logs-shop-default' } }),
  onDrop: ({ status, error, document }) => console.log(status, error.type, document.message)
})
console.log(info.tagline, result.total, result.successful, result.failed)
await client.close()
