// A server of the database that takes everything and says nothing any more: a statement is given up,
// and asking for its end holds up neither the vault nor the end of its process.
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { runModule } from '../helpers/processes.ts';

const message = (type: string, ...values: number[]): Buffer => {
  const bytes = Buffer.alloc(5 + 4 * values.length);
  bytes.write(type);
  bytes.writeInt32BE(bytes.length - 1, 1);
  for (const [at, value] of values.entries()) bytes.writeInt32BE(value, 5 + 4 * at);
  return bytes;
};
/** Authentication is not needed, the key for a cancellation, ready. */
const welcome = Buffer.concat([
  message('R', 0),
  message('K', 7, 7),
  Buffer.from([0x5a, 0, 0, 0, 5, 0x49]),
]);
const cancelRequest = 80_877_102;

t.test('the request to cancel has an end', async (t) => {
  const sockets: Socket[] = [];
  const kinds: number[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.once('data', (bytes: Buffer) => {
      kinds.push(bytes.readInt32BE(4));
      if (kinds.at(-1) !== cancelRequest) socket.write(welcome);
    });
    socket.resume();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const connection = pathToFileURL(join(import.meta.dirname, '../../src/db/connection.ts')).href;
  const program = runModule(
    t,
    `import { Connection } from ${JSON.stringify(connection)};
    const client = new Connection(
      { host: '127.0.0.1', port: Number(process.argv[1]), user: 'vault', password: '', database: 'vault', ssl: false },
      { statementTimeoutMs: 50, names: undefined, onServerGone: () => undefined, onTimeline: () => undefined },
    );
    await client.connect();
    await client.query('select 1').catch((error) => console.log(error.name));`,
    [String((server.address() as AddressInfo).port)],
  );
  await program.printed(/StatementTimeout/);
  t.equal(await program.ended, 0, 'the process ends by itself');
  t.same(kinds.slice(1), [cancelRequest], 'and the server was asked');
});
