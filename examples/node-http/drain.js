// For node -r ./drain.js app.js: servers of http and https drain without cutting off a kept connection. close(), which
// a draining worker calls, closes those that are idle at once, and a client that sends at that moment gets no answer.
// With this the next answer of each says "Connection: close", and what is idle for 5 seconds more is closed.
const http = require('http');
const https = require('https');

for (const { prototype } of [http.Server, https.Server]) {
  const { closeIdleConnections, emit } = prototype;
  prototype.closeIdleConnections = function () {
    setTimeout(() => closeIdleConnections.call(this), 5000).unref();
  };
  prototype.emit = function (event, request, response) {
    if (event === 'request' && !this.listening) response.shouldKeepAlive = false;
    return emit.apply(this, arguments);
  };
}
