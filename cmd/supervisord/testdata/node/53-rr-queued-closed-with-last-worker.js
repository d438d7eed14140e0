/* @scenario
{"policy": "rr", "expect": "queued connections are closed with the handle; the one already handed off leaks: client hangs; exit event but NO disconnect event",
 "steps": [
  {"fork": 1},
  {"wait": "listening", "count": 1},
  {"signal": {"w": 1, "sig": "SIGSTOP"}},
  {"connect": {"n": 3, "hold": "q", "mode": "par", "timeout": 300}},
  {"signal": {"w": 1, "sig": "SIGKILL"}},
  {"wait": "exit", "count": 1},
  {"sleep": 100},
  {"heldEvents": "q", "sorted": true},
  {"connect": {"n": 1}}
]}
*/
'use strict';
const net = require('net'), cluster = require('cluster');
const id = cluster.worker.id;
const obs = (o) => process.stdout.write('OBS ' + JSON.stringify(o) + '\n');
const err = (e) => ({ error: e.code, syscall: e.syscall, message: e.message });
let actions = 0; process.on('SIGUSR2', () => onAction(++actions)); let onAction = () => {};
const PORT = +process.env.PORT, PORT2 = +process.env.PORT2, UPATH = process.env.UPATH;
const mk = (opt) => { const s = net.createServer(opt || {}, (c) => { c.on('error', () => {}); c.write('W' + id + '\n'); c.on('data', (d) => c.write('echo:' + d)); }); s.on('error', (e) => obs(err(e))); s.on('listening', () => obs({ listening: s.address() })); s.on('close', () => obs({ close: true })); return s; };
mk().listen(PORT, '127.0.0.1');
