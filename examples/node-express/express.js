// An Express application as it would be without supervisord.
const express = require('express');

const app = express();
const answer = (req, res) => res.set('X-Worker', String(process.pid)).type('text').send(`pid ${process.pid}\n`);
app.get('/', answer);
app.get('/slow', (req, res) => setTimeout(answer, Number(req.query.ms), req, res));
app.listen(8080, '127.0.0.1');
