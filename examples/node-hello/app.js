'use strict';
// A small backend: says where it runs, and keeps notes in files. Node.js alone, no packages of npm.

const fs = require('node:fs/promises');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');

const NOTES = '/srv/notes';
const NOTE_NAME = /^\/notes\/([A-Za-z0-9_-]{1,64})$/;
const NOTE_MAX_BYTES = 1 << 20;

function reply(response, status, body, type = 'application/json') {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body) + '\n');
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': bytes.length });
  response.end(bytes);
}

function describe() {
  return {
    message: process.env.GREETING ?? 'hello from a machine of my own',
    hostname: os.hostname(),
    kernel: os.release(),
    cpus: os.cpus().length,
    memory_mib: Math.floor(os.totalmem() / 2 ** 20),
    user: process.getuid(),
  };
}

async function readNote(response, file) {
  try {
    reply(response, 200, await fs.readFile(file), 'application/octet-stream');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    reply(response, 404, { error: 'no such note' });
  }
}

let writes = 0;

async function writeNote(request, response, file) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > NOTE_MAX_BYTES) {
      response.setHeader('Connection', 'close');
      reply(response, 413, { error: `a note has at most ${NOTE_MAX_BYTES} bytes` });
      return;
    }
    chunks.push(chunk);
  }
  const partial = path.join(NOTES, `.${path.basename(file)}.${writes++}`);
  const handle = await fs.open(partial, 'w');
  try {
    await handle.writeFile(Buffer.concat(chunks));
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.rename(partial, file);
  reply(response, 201, { note: path.basename(file), bytes: length });
}

async function handle(request, response) {
  const note = NOTE_NAME.exec(request.url);
  if (request.method === 'GET' && request.url === '/') reply(response, 200, describe());
  else if (request.method === 'GET' && request.url === '/healthz') reply(response, 200, Buffer.from('ok\n'), 'text/plain');
  else if (request.method === 'GET' && note) await readNote(response, path.join(NOTES, note[1]));
  else if (request.method === 'PUT' && note) await writeNote(request, response, path.join(NOTES, note[1]));
  else reply(response, 404, { error: 'there is only /, /healthz and /notes/<name>' });
}

const server = http.createServer((request, response) => {
  const client = request.socket.remoteAddress; // a request that was given up has no socket any more when its answer is out
  response.on('finish', () => {
    console.log(`${new Date().toISOString()} ${client} "${request.method} ${request.url}" ${response.statusCode}`);
  });
  handle(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) reply(response, 500, { error: 'internal' });
    else response.destroy();
  });
});

const port = Number(process.env.PORT || 8080);
server.listen(port, '0.0.0.0', () => console.log(`listening on port ${port}`));
process.on('SIGTERM', () => {
  console.log('asked to end');
  server.close();
  server.closeAllConnections();
});
