// node cluster.js PORT WORKERS
//
// The server of bench/compare on Node's cluster module, with the fewest layers
// that Node has: net, not http. NODE_CLUSTER_SCHED_POLICY is rr or none.
// "ready" on standard output means that every worker listens.
'use strict';
const cluster = require('node:cluster');
const net = require('node:net');

const [port, workers] = process.argv.slice(2).map(Number);

if (cluster.isPrimary) {
  // WRAPPER runs a worker in a session of its own, which fork() cannot: the
  // kernel shares the processors out by session (sched(7), autogroup).
  if (process.env.WRAPPER) process.execPath = process.env.WRAPPER;
  let listening = 0;
  cluster.on('listening', () => { if (++listening === workers) console.log('ready'); });
  cluster.on('exit', (worker, code, signal) => {
    console.error(`worker ${worker.process.pid} has ended: ${signal || code}`);
    process.exit(1);
  });
  for (let i = 0; i < workers; i++) cluster.fork();
} else {
  const body = `${process.pid}\n`;
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nX-Worker: ${process.pid}\r\n`;
  const closing = `${head}Connection: close\r\n\r\n${body}`;
  const kept = `${head}\r\n${body}`;

  // burn uses ms milliseconds of CPU time of this process, which has one thread
  // of its own.
  const burn = (ms) => {
    const begun = process.cpuUsage();
    for (let spent = 0; spent < ms * 1000;) {
      for (let i = 0, x = 0; i < 10000; i++) x = (x * 31 + i) | 0;
      const used = process.cpuUsage(begun);
      spent = used.user + used.system;
    }
  };

  net.createServer((socket) => {
    let text = '';
    socket.on('error', () => {}); // the client went away
    socket.on('data', (chunk) => {
      text += chunk.latin1Slice();
      if (!text.endsWith('\r\n\r\n')) return;
      const request = text;
      text = '';
      if (request.startsWith('GET /cpu?ms=')) burn(parseInt(request.slice(12), 10));
      if (request.endsWith('close\r\n\r\n')) socket.end(closing, 'latin1');
      else socket.write(kept, 'latin1');
    });
  }).listen({ port, host: '127.0.0.1', backlog: 511 });
}
