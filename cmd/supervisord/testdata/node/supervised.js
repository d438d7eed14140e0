'use strict';
// cluster(PROGRAM) is what primary.js uses of the module cluster of a primary, by means
// of a supervisord: each worker is a pool of its own with one worker, and what happens
// to it is read from the daemon's events.
//
//	fork(env)                     a pool more in the configuration, and a reload
//	worker.disconnect()           scale POOL 0
//	online, listening, message    worker.online, worker.listening, worker.message
//	disconnect, exit              worker.disconnected, worker.exited or worker.failed
//
// Unlike the primary's own, the callback of disconnect is called when all workers have
// exited, and workers cannot be sent messages.
const { EventEmitter } = require('events');
const cp = require('child_process'), fs = require('fs'), http = require('http'), os = require('os'), path = require('path');

const SCHED_NONE = 1, SCHED_RR = 2; // as Node has them
const everything = ['*:0-65535', '/', '@*'];

class Worker extends EventEmitter {
  constructor(cluster, id, env) {
    super();
    Object.assign(this, { cluster, id, env, state: 'none', pool: 'w' + id, connected: true, dead: false });
    this.output = { path: path.join(cluster.dir, this.pool + '.out'), read: 0 };
    const kill = (signal) => process.kill(this.process.pid, signal || 'SIGTERM');
    this.process = { pid: undefined, stdout: new EventEmitter(), stderr: new EventEmitter(), kill };
  }
  isConnected() { return this.connected; }
  isDead() { return this.dead; }
  kill(signal) { this.process.kill(signal); }
  send() { throw new Error('a supervisord sends no messages of its own to workers'); }
  disconnect() {
    this.cluster.ask('/v1/scale', { pool: this.pool, workers: 0 });
    return this;
  }

  // drained: the worker was told to go, or goes by its own will.
  drained() {
    this.exitedAfterDisconnect = true;
    delete this.cluster.workers[this.id];
  }

  // flush reads what the worker has written since; standard output and error are one
  // file.
  flush() {
    let text;
    try { text = fs.readFileSync(this.output.path, 'utf8'); } catch { return; }
    if (text.length === this.output.read) return;
    const more = text.slice(this.output.read);
    this.output.read = text.length;
    this.process.stdout.emit('data', more);
    this.process.stderr.emit('data', more);
  }
}

class Cluster extends EventEmitter {
  constructor(program) {
    super();
    Object.assign(this, { program, SCHED_NONE, SCHED_RR, schedulingPolicy: SCHED_RR, workers: {}, all: [], listeners_: [], work: Promise.resolve() });
  }

  setupPrimary(settings) {
    this.settings = settings;
    this.policy = this.schedulingPolicy === SCHED_NONE ? 'shared' : 'round_robin';
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sd-')); // by now umask and user are the scenario's
    this.socket = path.join(this.dir, 'control.sock');
  }

  // listener configures a listener, and returns its descriptor in workers to come.
  listener(host, port) {
    this.listeners_.push({ name: 'l' + this.listeners_.length, address: `${host}:${port}`, policy: this.policy });
    return 2 + this.listeners_.length;
  }

  fork(env) {
    const w = new Worker(this, this.all.length + 1, env);
    w.listeners_ = this.listeners_.map((l) => l.name);
    this.all.push(w);
    this.workers[w.id] = w;
    const text = this.configuration(this.all.length);
    this.next(() => {
      fs.writeFileSync(path.join(this.dir, 'supervisord.toml'), text);
      return w.id === 1 ? this.start() : this.post('/v1/reload');
    });
    return w;
  }

  disconnect(callback) {
    this.emptied = callback;
    for (const w of Object.values(this.workers)) w.disconnect();
    if (this.all.every((w) => w.dead)) process.nextTick(callback);
  }

  // next does what changes the daemon, one after another.
  next(f) { this.work = this.work.then(f).catch((e) => setImmediate(() => { throw e; })); }
  ask(path, body) { this.next(() => this.post(path, body)); }

  configuration(n) {
    const q = JSON.stringify, out = [];
    for (const l of this.listeners_) out.push(`[listener.${l.name}]`, `address = ${q(l.address)}`, `policy = ${q(l.policy)}`);
    for (const w of this.all.slice(0, n)) {
      const env = { ...w.env, ...(this.policy === 'shared' ? { NODE_CLUSTER_SCHED_POLICY: 'none' } : {}) };
      out.push(`[pool.${w.pool}]`, `command = [${q(process.execPath)}, ${q(this.settings.exec)}]`, 'protocol = "node"',
        `working_directory = ${q(this.settings.cwd)}`, `umask = ${q('0' + process.umask().toString(8).padStart(3, '0'))}`, 'ready = "delay:1ms"',
        'restart = "never"', `bind_allow = ${q(everything)}`, `listeners = ${q(w.listeners_)}`, `output = ${q('file:' + w.output.path)}`,
        `env = { ${Object.entries(env).map(([k, v]) => `${k} = ${q(String(v))}`).join(', ')} }`);
    }
    return out.join('\n') + '\n';
  }

  // start runs the daemon; what it logs goes to standard error.
  async start() {
    const env = { ...process.env };
    delete env.SUPERVISORD;
    this.daemon = cp.spawn(this.program, ['run', '--no-keeper', '-c', path.join(this.dir, 'supervisord.toml'), '--socket', this.socket], { cwd: this.dir, env, stdio: ['ignore', 2, 2] });
    this.pid = this.daemon.pid;
    this.ended = new Promise((r) => this.daemon.once('exit', (code, signal) => r(signal || code)));
    this.reader = setInterval(() => this.all.forEach((w) => w.flush()), 5);
    await this.follow();
  }

  request(method, path, body) {
    return new Promise((resolve, reject) => {
      const r = http.request({ socketPath: this.socket, method, path, agent: false }, resolve);
      r.on('error', reject);
      r.end(body && JSON.stringify(body));
    });
  }

  // follow reads the daemon's events, from the first on.
  async follow() {
    let answer;
    for (const t = Date.now(); !answer; await new Promise((r) => setTimeout(r, 5))) {
      try { answer = await this.request('GET', '/v1/events?follow=1'); } catch (e) {
        if (Date.now() - t > 10000) throw e;
      }
    }
    let last = 0;
    lines(answer, (e) => {
      if (e.id !== ++last) throw new Error(`event ${last} was missed`);
      this.happened(e);
    });
  }

  // post gives a command and waits for its result.
  async post(path, body) {
    const answer = await this.request('POST', path, body);
    await new Promise((resolve, reject) => {
      let result;
      lines(answer, (l) => { result = l.result || l.error && l || result; });
      answer.on('end', () => !result || result.error ? reject(new Error(`${path}: ${result ? result.error : 'no result'}`)) : resolve());
      answer.on('error', reject);
    });
  }

  happened(e) {
    const w = e.worker && this.all[e.worker - 1];
    if (!w) return;
    if (e.pool !== w.pool) throw new Error(`worker ${e.worker} is of pool ${e.pool}`);
    switch (e.event) {
      case 'worker.started':
        w.process.pid = e.pid;
        break;
      case 'worker.online':
        w.state = 'online';
        this.emit('online', w);
        break;
      case 'worker.listening':
        w.state = 'listening';
        this.emit('listening', w, place(e.cause, this.settings.cwd));
        break;
      case 'worker.message':
        this.emit('message', w, JSON.parse(e.cause));
        break;
      case 'worker.draining':
        w.drained();
        break;
      case 'worker.disconnected':
        w.state = 'disconnected';
        w.connected = false;
        w.exitedAfterDisconnect = !!w.exitedAfterDisconnect;
        delete this.workers[w.id];
        this.emit('disconnect', w);
        break;
      case 'worker.exited':
      case 'worker.failed':
        w.state = 'dead';
        w.dead = true;
        w.exitedAfterDisconnect = !!w.exitedAfterDisconnect;
        delete this.workers[w.id];
        w.flush();
        w.process.stderr.emit('end');
        this.emit('exit', w, e.code === undefined ? null : e.code, e.signal || null);
        if (this.emptied && this.all.every((w) => w.dead)) this.emptied();
        break;
    }
  }

  // end stops the daemon, and says whether it ended as it should.
  async end() {
    await this.work;
    clearInterval(this.reader);
    if (!this.daemon) return true;
    this.daemon.kill('SIGTERM');
    const code = await this.ended;
    fs.rmSync(this.dir, { recursive: true, force: true });
    if (code !== 0) console.error('the daemon ended with ' + code);
    return code === 0;
  }
}

// lines calls f with each line of JSON.
function lines(stream, f) {
  let buf = '';
  stream.setEncoding('utf8').on('data', (d) => {
    buf += d;
    for (let i; (i = buf.indexOf('\n')) >= 0;) {
      const line = buf.slice(0, i);
      buf = buf.slice(i + 1);
      f(JSON.parse(line));
    }
  });
}

// place is what Node tells of a place with the event listening: "tcp 127.0.0.1:80",
// "tcp :80" for one without a host, "udp4 0.0.0.0:53", "unix /path", "unix @name", of
// which Node makes a path in the worker's directory, "fd 3 (port 80)".
function place(text, directory) {
  let m;
  if ((m = /^fd (\d+)(?: \(port (\d+)\))?$/.exec(text))) return { address: null, port: m[2] ? +m[2] : null, addressType: null, fd: +m[1] };
  if ((m = /^unix (.*)$/s.exec(text))) return { address: m[1].replace(/^@/, directory + '/\0'), port: -1, addressType: -1 };
  m = /^(tcp|udp4|udp6) (?:\[(.*)\]|(.*)):(\d+)$/.exec(text);
  const [, network, six, four, port] = m;
  if (network !== 'tcp') return { address: six || four, port: +port, addressType: network, fd: -1 };
  return { address: six || four || null, port: +port, addressType: six ? 6 : 4 };
}

exports.cluster = (program) => new Cluster(program);
