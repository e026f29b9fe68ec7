// Serves TimescaleDB's community edition, compiled to WebAssembly, on a port of loopback. One session at a time:
// the next client waits until the one before has hung up. There are no background workers.
// usage: node serve.mjs FOLDER_WITH_NODE_MODULES PORT
import net from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, port] = process.argv.slice(2)
const dist = path.join(folder, 'node_modules', '@unni-craftsman', 'pglite', 'dist')
const load = (file) => import(pathToFileURL(path.join(dist, file)))
const { PGlite } = await load('index.js')
const { timescaledb } = await load('timescaledb/index.js')

const database = await PGlite.create({ extensions: { timescaledb } })
const SSL = 80877103, GSS = 80877104
const PASSWORD = Buffer.from('p\0\0\0\x0dpassword\0', 'latin1')
let turn = Promise.resolve()

// Cuts what arrives into messages: the first has no type byte, and asks for encryption may come before it.
async function * messages (socket) {
  let buffer = Buffer.alloc(0)
  let started = false
  for await (const data of socket) {
    buffer = Buffer.concat([buffer, data])
    for (;;) {
      const head = started ? 1 : 0
      if (buffer.length < head + 8 - 4 * head) break
      const length = head + buffer.readInt32BE(head)
      if (buffer.length < length) break
      const message = buffer.subarray(0, length)
      buffer = buffer.subarray(length)
      if (!started && [SSL, GSS].includes(message.readInt32BE(4))) {
        socket.write('N')
        continue
      }
      yield { message, first: !started }
      started = true
    }
  }
}

async function answer (message, first) {
  const reply = Buffer.from(await database.execProtocolRaw(new Uint8Array(message)))
  const asksForPassword = first && reply[0] === 'R'.charCodeAt(0) && reply.readInt32BE(5) !== 0
  return asksForPassword ? Buffer.from(await database.execProtocolRaw(new Uint8Array(PASSWORD))) : reply
}

async function serve (socket) {
  for await (const { message, first } of messages(socket)) {
    if (!first && message[0] === 'X'.charCodeAt(0)) break
    const reply = await answer(message, first)
    if (reply.length) socket.write(reply)
  }
}

async function session (socket) {
  try {
    await serve(socket)
  } catch (error) {
    console.error(error.message)
  } finally {
    socket.destroy()
    await database.exec('ROLLBACK') // apart: DISCARD ALL must not be in the transaction that several statements share
    await database.exec('DISCARD ALL')
    await database.exec('SET search_path TO "$user", public') // this build's own default is pg_catalog alone
  }
}

net.createServer((socket) => {
  socket.setNoDelay(true)
  socket.on('error', () => {})
  turn = turn.then(() => session(socket))
}).listen(Number(port), '127.0.0.1', () => console.log('ready'))
