// node server.js PORT: an HTTP server that knows nothing of clusters.
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.setHeader('X-Worker', process.pid);
  response.end(`pid=${process.pid} round=${process.env.ROUND}\n`);
});

server.listen(process.argv[2], '127.0.0.1');
