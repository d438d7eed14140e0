// HTTPS on one port and HTTP/2 on another. Only the last lines are for the supervisor.
const fs = require('fs');
const http2 = require('http2');
const https = require('https');

const tls = { key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') };
const answer = (req, res) => {
  const ms = new URL(req.url, 'https://localhost').searchParams.get('ms');
  setTimeout(() => {
    const body = `pid ${process.pid}\n`;
    res.writeHead(200, { 'Content-Length': body.length, 'X-Worker': process.pid });
    res.end(body);
  }, Number(ms));
};
https.createServer(tls, answer).listen(8080, '127.0.0.1');
const h2 = http2.createSecureServer(tls, answer).listen(8081, '127.0.0.1');

// close() of a server, which a draining worker calls, waits for the sessions of HTTP/2 and tells them nothing: they would
// keep the worker until graceful_timeout. With close() of a session (GOAWAY) its client finishes, and goes to another one.
const sessions = new Set();
h2.on('session', (session) => {
  sessions.add(session);
  session.on('close', () => sessions.delete(session));
  if (!h2.listening) session.close();
});
const close = h2.close;
h2.close = function (callback) {
  sessions.forEach((session) => session.close());
  return close.call(this, callback);
};
