'use strict';
// Runs one scenario and prints what was observed, {canon, log}, as JSON:
//
//	node primary.js NN-name.js                            under Node's own primary
//	SUPERVISORD=PROGRAM node primary.js NN-name.js        under a supervisord
//	SLOW=4 ...                                            on a slow machine
//
// README.md says what a scenario is. The two runs differ in the module cluster, which
// supervised.js stands in for, and in nothing else: where a step needs more than that
// module has, the few lines are here, marked "supervised".
const net = require('net'), dgram = require('dgram'), fs = require('fs'), path = require('path'), cp = require('child_process'), os = require('os');
const supervised = !!process.env.SUPERVISORD;
const cluster = supervised ? require('./supervised.js').cluster(process.env.SUPERVISORD) : require('cluster');

const file = path.resolve(process.argv[2]);
const spec = JSON.parse(/\/\*\s*@scenario\s*([\s\S]*?)\*\//.exec(fs.readFileSync(file, 'utf8'))[1]);
const slow = +process.env.SLOW || 1; // so many times as long take the steps that are times
const nap = (ms) => new Promise((r) => setTimeout(r, ms));
const sleep = (ms) => nap(ms * slow);
const primaryPid = () => supervised ? cluster.pid : process.pid;

const T = fs.mkdtempSync(path.join(os.tmpdir(), 'sc-'));
fs.chmodSync(T, 0o777);
const names = {}; // real value -> symbolic name
const env = {};
const log = []; // what the primary saw, in order
const held = {};
const W = {}; // id -> worker
const count = { online: 0, listening: 0, disconnect: 0, exit: 0, obs: 0 };

// norm replaces what differs from run to run by its symbolic name.
function norm(v) {
  let s = JSON.stringify(v);
  if (s === undefined) return v;
  for (const [real, sym] of Object.entries(names).sort((a, b) => b[0].length - a[0].length)) s = s.split(real).join(sym);
  s = s.replace(/:"(PORT\d?)"/g, ':"$1"').replace(/([:\[,])(PORT\d?)(?=[,}\]])/g, '$1"$2"');
  try { return JSON.parse(s); } catch { return s; }
}
const rnds = {};
const rnd = (d) => rnds[d] || (rnds[d] = 'RAND' + (Object.keys(rnds).length + 1));
const put = (o) => log.push(norm(o));

// freePort returns a port of 127.0.0.1 that nobody listens on, below the range of
// automatic ports, from which clients take theirs meanwhile.
function freePort() {
  for (;;) {
    const port = 10000 + Math.floor(Math.random() * 20000);
    const h = net._createServerHandle('127.0.0.1', port, 4);
    if (typeof h === 'number') continue;
    const free = h.listen(1) === 0;
    h.close();
    if (free && !names[port]) return port;
  }
}
for (const k of ['PORT', 'PORT2']) { const p = freePort(); env[k] = String(p); names[String(p)] = k; }
env.UPATH = path.join(T, 'u.sock'); env.TMPD = T; names[T] = 'TMPD';

cluster.schedulingPolicy = spec.policy === 'none' ? cluster.SCHED_NONE : cluster.SCHED_RR;
if (spec.sameCwd) process.chdir(T);
process.umask(parseInt(spec.umask || '022', 8));
if (spec.setuid && process.getuid() === 0) { process.setgroups([]); process.setgid(spec.setuid); process.setuid(spec.setuid); }
cluster.setupPrimary({ exec: file, silent: true, cwd: T, ...(spec.setup || {}) });

const tag = (w) => 'W' + w.id;
const said = (v) => v === undefined ? '<undefined>' : v;
cluster.on('online', (w) => { count.online++; put({ ev: 'online', w: tag(w) }); });
cluster.on('listening', (w, a) => { count.listening++; put({ ev: 'listening', w: tag(w), address: said(a.address), port: a.port, addressType: a.addressType, fd: said(a.fd) }); });
cluster.on('disconnect', (w) => { count.disconnect++; put({ ev: 'disconnect', w: tag(w), exitedAfterDisconnect: w.exitedAfterDisconnect }); });
cluster.on('exit', (w, c, s) => { count.exit++; put({ ev: 'exit', w: tag(w), code: c, signal: s, exitedAfterDisconnect: w.exitedAfterDisconnect }); });
cluster.on('message', (w, m) => put({ ev: 'message', w: tag(w), m }));

function fork(e) {
  const w = cluster.fork({ ...env, ...e });
  W[w.id] = w;
  let buf = '', err = '';
  w.process.stdout.on('data', (d) => {
    buf += d;
    for (let i; (i = buf.indexOf('\n')) >= 0; buf = buf.slice(i + 1)) {
      const l = buf.slice(0, i);
      if (l.startsWith('OBS ')) { count.obs++; put({ obs: tag(w), ...JSON.parse(l.slice(4)) }); }
    }
  });
  w.process.stderr.on('data', (d) => { err += d; });
  w.process.stderr.on('end', () => { const m = /^(\w*Error.*)$/m.exec(err); if (m) put({ stderr: tag(w), first: m[1] }); });
  return w;
}

async function until(f, ms) {
  const t = Date.now();
  while (Date.now() - t < ms * slow) { if (f()) return true; await nap(5); }
  return false;
}

// holders asks the kernel who has a descriptor of a listening socket.
function holders(port, udp) {
  const out = cp.execFileSync('ss', [udp ? '-Hlunp' : '-Hltnp', `sport = :${port}`]).toString().trim();
  if (!out) return [];
  const pid2 = { [primaryPid()]: 'P' };
  for (const w of Object.values(W)) pid2[w.process.pid] = tag(w);
  return out.split('\n').map((l) => {
    const f = l.trim().split(/\s+/);
    const who = [...new Set([...l.matchAll(/pid=(\d+)/g)].map((m) => pid2[m[1]] || 'other'))].sort();
    return { local: f[3], backlog: udp ? undefined : +f[2], holders: who };
  });
}

// one connects once: the first line of the answer, EOF, an error's code, or TIMEOUT.
function one(o) {
  return new Promise((res) => {
    const k = net.connect(o.path ? { path: o.path } : { port: +env[o.port || 'PORT'] || o.port, host: o.host || '127.0.0.1', allowHalfOpen: !!o.half });
    let got = '', done = false;
    const fin = (v) => { if (!done) { done = true; clearTimeout(t); res([v, k]); } };
    const t = setTimeout(() => fin('TIMEOUT'), (o.timeout || 1200) * slow);
    k.on('data', (d) => { got += d; if (got.includes('\n')) fin(got.split('\n')[0]); });
    k.on('end', () => fin(got || 'EOF'));
    k.on('error', (e) => fin(e.code));
    k.on('close', () => fin('CLOSED'));
    if (o.send) k.write(o.send);
    k.events = [];
    k.on('end', () => k.events.push('end'));
    k.on('error', (e) => k.events.push(e.code));
    k.on('close', () => k.events.push('close'));
    k.on('data', (d) => k.events.push('data:' + d.toString().trim()));
  });
}

const port = (x) => env[x] ? +env[x] : x;
const isWorker = (v) => /^W\d/.test(v);
function tally(list) {
  const t = {};
  list.forEach((v) => { t[v] = (t[v] || 0) + 1; });
  return t;
}
function python(code) { return cp.spawn('python3', ['-c', code]); }

// Each step by the name of its first member.
const steps = {
  fork(s) { for (let i = 0; i < s.fork; i++) fork(s.env || {}); },
  async wait(s) {
    const ok = await until(() => count[s.wait] >= s.count, s.ms || 3000);
    if (!ok) put({ wait_timeout: s.wait, want: s.count, have: count[s.wait] });
    await sleep(30);
  },
  async sleep(s) { await sleep(s.sleep); },
  async connect(s) {
    const o = { ...s.connect }, n = o.n || 1, r = [], ks = [];
    if (o.path) o.path = env[o.path] || o.path;
    if (o.mode === 'par') for (const [v, k] of await Promise.all(Array.from({ length: n }, () => one(o)))) { r.push(v); ks.push(k); }
    else for (let i = 0; i < n; i++) { const [v, k] = await one(o); r.push(v); ks.push(k); if (!o.hold) { k.destroy(); await sleep(o.gap || 15); } }
    if (o.hold) held[o.hold] = (held[o.hold] || []).concat(ks); else ks.forEach((k) => k.destroy());
    const label = o.label || '';
    if (o.balance) { const t = tally(r), v = Object.values(t); put({ connect: label, answered: r.length, workers: Object.keys(t).sort(), balanced: Math.max(...v) - Math.min(...v) <= n * 0.3 }); }
    else if (o.any) put({ connect: label, answered: r.filter(isWorker).length, other: r.filter((v) => !isWorker(v)) });
    else if (o.tally) put({ connect: o.label || 'tally', tally: Object.fromEntries(Object.entries(tally(r)).sort()) });
    else put({ connect: label, got: o.sorted ? [...r].sort() : r });
  },
  heldEvents(s) {
    const ks = held[s.heldEvents].map((k) => [k.events, k.destroyed]);
    if (s.sorted) ks.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
    put({ held: s.heldEvents, events: ks.map((k) => k[0]), destroyed: ks.map((k) => k[1]) });
  },
  async write(s) { for (const k of held[s.write.name]) k.write(s.write.data); await sleep(80); },
  async end(s) { for (const k of held[s.end]) k.end(s.data); await sleep(80); },
  async close(s) { held[s.close].forEach((k) => k.destroy()); await sleep(30); },
  async action(s) { process.kill(W[s.action].process.pid, 'SIGUSR2'); await sleep(s.ms || 60); },
  disconnect(s) { W[s.disconnect].disconnect(); put({ did: 'disconnect W' + s.disconnect }); },
  disconnectAll() { cluster.disconnect(() => put({ ev: 'cluster.disconnect callback' })); },
  workerKill(s) { W[s.workerKill].kill(s.signal); },
  async signal(s) { process.kill(W[s.signal.w].process.pid, s.signal.sig); await sleep(30); },
  ss(s) { put({ ss: s.ss, rows: holders(port(s.ss)) }); },
  ssu(s) { put({ ssu: s.ssu, rows: holders(port(s.ssu), true) }); },
  stat(s) {
    let v;
    try {
      const st = fs.lstatSync(env[s.stat] || path.join(T, s.stat));
      v = (st.mode & 0o7777).toString(8) + (st.isSocket() ? ' socket' : ' notsock');
    } catch (e) { v = e.code; }
    put({ stat: s.stat, v });
  },
  async udp(s) {
    const c = dgram.createSocket('udp4'), r = [], n = s.udp.n || 1;
    await new Promise((q) => c.bind({ port: 0, address: '127.0.0.1', exclusive: true }, q));
    for (let i = 0; i < n; i++) {
      r.push(await new Promise((res) => {
        const t = setTimeout(() => res('TIMEOUT'), 500 * slow);
        c.once('message', (m) => { clearTimeout(t); res(m.toString()); });
        c.send('m' + i, port(s.udp.port || 'PORT'), '127.0.0.1');
      }));
    }
    c.close();
    put(s.udp.who ? { udp: [...new Set(r)].sort(), n: r.length } : { udp_answered: r.filter(isWorker).length, n: r.length });
  },
  async send(s) { W[s.send].send(s.msg); await sleep(60); },
  async occupy(s) {
    const kind = s.udp_occupy ? 'DGRAM' : 'STREAM';
    const c = python(`import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_${kind})\ns.bind(('${s.host || '0.0.0.0'}',${port(s.occupy)}))\n${s.udp_occupy ? '' : 's.listen()'}\nprint('ok',flush=True)\nsys.stdin.read()`);
    await new Promise((r, no) => { c.stdout.once('data', r); c.once('exit', () => no(new Error('the port cannot be occupied'))); });
    held['occ' + s.occupy] = [{ destroy() { c.kill('SIGKILL'); }, events: [] }];
  },
  async release(s) { held['occ' + s.release][0].destroy(); await sleep(80); },
  openfd(s) {
    let fd;
    if (supervised) fd = cluster.listener('127.0.0.1', port(s.openfd)); // which its workers have as descriptor 3
    else {
      const h = net._createServerHandle('127.0.0.1', port(s.openfd), 4);
      fd = h.fd;
      held.fdh = [{ destroy() { h.close(); }, events: [] }];
    }
    env.LFD = String(fd);
    names['"fd":' + fd + '}'] = '"fd":"LFD"}';
    names['"fd":' + fd + ','] = '"fd":"LFD",';
  },
  async primaryListen(s) {
    const sv = net.createServer((c) => { c.on('error', () => {}); c.end('PRIMARY\n'); });
    await new Promise((r) => { sv.on('error', (e) => { put({ primaryListenError: e.code }); r(); }); sv.listen(port(s.primaryListen), s.host, r); });
    held.ps = [{ destroy() { sv.close(); }, events: [] }];
  },
  async cpu(s) {
    const ticks = () => { const f = fs.readFileSync(`/proc/${primaryPid()}/stat`, 'latin1').split(') ')[1].split(' '); return +f[11] + +f[12]; }; // of 10 ms, proc_pid_stat(5)
    const before = ticks();
    await sleep(s.cpu);
    put({ primary_cpu: (ticks() - before) * 10 / (s.cpu * slow) > 0.3 ? 'busy loop' : 'idle' });
  },
  staleSock(s) { cp.spawnSync('python3', ['-c', `import socket;s=socket.socket(socket.AF_UNIX);s.bind('${env[s.staleSock]}')`]); },
  policyFrozen() {
    const before = cluster.schedulingPolicy;
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    put({ changed_after_fork: [before, cluster.schedulingPolicy] });
  },
  workers() {
    put({ workers: Object.keys(cluster.workers).map((i) => 'W' + i), states: Object.values(W).map((w) => [tag(w), w.state, w.isConnected(), w.isDead()]) });
  },
};

// canonical groups what was seen by its source: how processes interleave is chance,
// the order within one is not.
function canonical(seen) {
  const canon = { driver: [] };
  for (const e of seen) {
    const w = e.obs || e.w || e.stderr;
    if (!w) { canon.driver.push(e); continue; }
    const c = canon[w] || (canon[w] = { obs: [], ev: [] }), r = { ...e };
    delete r.obs; delete r.w;
    (e.obs ? c.obs : c.ev).push(r);
  }
  const ordered = { driver: canon.driver };
  for (const k of Object.keys(canon).filter((k) => k !== 'driver').sort()) {
    if (spec.unordered) canon[k].obs.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
    ordered[k] = canon[k];
  }
  return ordered;
}

// named gives ports that the kernel chose a name each.
const named = (o) => JSON.parse(JSON.stringify(o).replace(/(?<=[:\[,{])([3-6]\d{4})(?=[,}\]])/g, (m, d) => (+d >= 32768 && +d <= 60999) ? JSON.stringify(rnd(d)) : m));

let finished = false;
async function finish() {
  if (finished) return;
  finished = true;
  const seen = log.slice(); // before anything is killed
  for (const w of Object.values(W)) { try { process.kill(w.process.pid, 'SIGCONT'); } catch {} try { w.process.kill('SIGKILL'); } catch {} }
  await sleep(40);
  for (const a of Object.values(held)) for (const k of a) try { k.destroy(); } catch {}
  const clean = supervised ? await cluster.end() : true;
  const result = { scenario: path.basename(file), node: process.version, policy: spec.policy, canon: named(canonical(seen)), log: named(seen) };
  process.stdout.write(JSON.stringify(result) + '\n', () => {
    try { fs.rmSync(T, { recursive: true, force: true }); } catch {} // with setuid it is another user's
    process.exit(clean ? 0 : 1);
  });
}
process.on('uncaughtException', (e) => {
  put({ PRIMARY_UNCAUGHT: String(e.message).split('\n')[0], code: e.code });
  console.error(e.stack);
  if (spec.stopOnPrimaryCrash) finish();
});
async function main() {
  setTimeout(() => { put({ RUNNER: 'global timeout' }); finish(); }, 25000);
  for (const s of spec.steps) {
    const name = Object.keys(s).find((k) => steps[k]);
    if (!name) throw new Error('unknown step ' + JSON.stringify(s));
    await steps[name](s);
  }
  await sleep(60); // the tail of what the workers say
}
main().catch((e) => { console.error(e.stack); put({ RUNNER: e.message }); }).then(finish);
