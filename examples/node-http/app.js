// An HTTP server as it would be without supervisord: it listens, and that is all.
const http = require('http');

http.createServer((req, res) => {
  const url = new URL(req.url, 'http://localhost');
  const answer = () => {
    const body = `pid ${process.pid}\n`;
    res.writeHead(200, { 'Content-Length': body.length, 'X-Worker': process.pid });
    res.end(body);
  };
  if (url.pathname === '/slow') setTimeout(answer, Number(url.searchParams.get('ms')));
  else answer();
}).listen(8080, '127.0.0.1');
