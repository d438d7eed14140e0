// A client that keeps its session of HTTP/2 until the server says goodbye, one request after the other until SIGTERM.
const http2 = require('http2');

let session, answers = 0, sessions = 0, refused = 0, ended = false;
const failures = [];

function connect() {
  const s = session = http2.connect(process.argv[2], { rejectUnauthorized: false });
  sessions++;
  const gone = () => { if (session === s) session = undefined; };
  s.on('goaway', gone);
  s.on('close', gone);
  s.on('error', (err) => failures.push(`session: ${err}`));
}

function next() {
  if (ended) {
    console.log(`${answers} answers in ${sessions} sessions, ${failures.length} failures, ${refused} refused and sent again`, failures.slice(0, 5).join(' '));
    process.exit(failures.length > 0 ? 1 : 0);
  }
  if (!session) connect();
  const req = session.request({ ':path': '/' });
  let status;
  req.on('response', (headers) => { status = headers[':status']; });
  req.on('error', (err) => { if (req.rstCode !== http2.constants.NGHTTP2_REFUSED_STREAM) failures.push(String(err)); });
  req.on('close', () => {
    // RFC 9113, section 8.7: what crossed the goodbye of the server was not processed, and may be sent again.
    if (req.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM) refused++;
    else if (status !== 200) failures.push(`status ${status}`);
    else if (++answers === 1) console.log('begun');
    setTimeout(next, 20);
  });
  req.resume();
}

process.on('SIGTERM', () => { ended = true; });
next();
