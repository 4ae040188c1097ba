// The npm package ws's side of ws_test.cpp: usage and conversation are those of websocket_peer.hpp. The package is
// found through NODE_PATH.

'use strict';

const assert = require('assert');
const fs = require('fs');
const http = require('http');
const https = require('https');
const { once } = require('events');
const WebSocket = require('ws');

const SIZES = [0, 1, 125, 126, 1000, 65535, 65536, 1024 * 1024];
const LIMIT = 16 * 1024 * 1024;

const [mode, port] = process.argv.slice(2);
const deflate = process.argv.includes('--deflate');
const tlsAt = process.argv.indexOf('--tls');
const tlsFiles = tlsAt < 0 ? [] : process.argv.slice(tlsAt + 1).map((file) => fs.readFileSync(file));
// Everything is compressed, however short.
const perMessageDeflate = deflate && { threshold: 0 };

function pieces(data, count) {
  const step = Math.max(1, Math.ceil(data.length / count));
  const result = [];
  for (let at = 0; at < data.length; at += step) result.push(data.subarray(at, at + step));
  return result.length ? result : [data];
}

function sendPieces(ws, data, binary, count) {
  const all = pieces(data, count);
  all.forEach((piece, i) => ws.send(piece, { binary, fin: i === all.length - 1 }));
}

function serveOne(ws, request) {
  const url = new URL(request.url, 'ws://localhost');
  ws.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  ws.on('error', (error) => console.log(`error ${error}`));
  if (url.pathname === '/close') ws.close(Number(url.searchParams.get('code')), url.searchParams.get('reason'));
  ws.on('message', async (data, binary) => {
    if (url.pathname === '/echo') ws.send(data, { binary });
    if (url.pathname === '/fragments') sendPieces(ws, data, binary, 7);
    if (url.pathname === '/ping') {
      ws.ping(data);
      const [back] = await once(ws, 'pong');
      assert.deepStrictEqual(back, data);
      ws.send('pong came');
    }
  });
}

function serve() {
  const server = tlsAt < 0 ? http.createServer() : https.createServer({ cert: tlsFiles[0], key: tlsFiles[1] });
  const handleProtocols = (offered) => (offered.has('echo') ? 'echo' : false);
  const wss = new WebSocket.Server({ server, perMessageDeflate, maxPayload: LIMIT, handleProtocols });
  wss.on('connection', serveOne);
  server.listen(Number(port), 'localhost', () => console.log(`listening on ${server.address().port}`));
}

function textOf(size) {
  const unit = Buffer.from('grüße 🐎 ');
  const units = Math.floor(size / unit.length);
  return Buffer.concat([...Array(units).fill(unit), Buffer.alloc(size - units * unit.length, 'x')]);
}

async function connect() {
  const secure = tlsAt >= 0;
  const options = { perMessageDeflate, maxPayload: LIMIT, ca: tlsFiles[0] };
  const ws = new WebSocket(`${secure ? 'wss' : 'ws'}://localhost:${port}/echo`, ['echo'], options);
  await once(ws, 'open');
  assert.strictEqual(ws.protocol, 'echo');
  return ws;
}

async function expectEcho(ws, data, binary) {
  const [back, isBinary] = await once(ws, 'message');
  assert.strictEqual(isBinary, binary);
  assert.ok(back.equals(data), `${data.length} bytes came back as ${back.length}`);
}

async function ask() {
  const ws = await connect();
  for (const size of SIZES) {
    const binary = Buffer.from(Array.from({ length: size }, (_, i) => (i * i) % 251));
    for (const [data, isBinary] of [[textOf(size), false], [binary, true]]) {
      ws.send(data, { binary: isBinary });
      await expectEcho(ws, data, isBinary);
      sendPieces(ws, data, isBinary, 5);
      await expectEcho(ws, data, isBinary);
    }
  }
  for (const payload of ['are you there', '\0'.repeat(125)]) {
    ws.ping(payload);
    const [back] = await once(ws, 'pong');
    assert.strictEqual(back.toString(), payload);
  }
  ws.close(4000, 'bye grüße');
  const [code, reason] = await once(ws, 'close');
  assert.deepStrictEqual([code, reason.toString()], [4000, '']);

  const other = await connect();
  other.send('close me');
  const [otherCode, otherReason] = await once(other, 'close');
  assert.deepStrictEqual([otherCode, otherReason.toString()], [4001, 'as you wish']);
}

if (mode === 'serve') {
  serve();
} else {
  setTimeout(() => process.exit(2), 60000).unref();
  ask().catch((error) => {
    console.log(error);
    process.exit(1);
  });
}
