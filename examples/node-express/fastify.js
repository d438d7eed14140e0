// A Fastify application as it would be without supervisord.
const { setTimeout: sleep } = require('timers/promises');
const fastify = require('fastify')();

const answer = (req, reply) => reply.header('X-Worker', process.pid).send(`pid ${process.pid}\n`);
fastify.get('/', answer);
fastify.get('/slow', async (req, reply) => {
  await sleep(Number(req.query.ms));
  return answer(req, reply);
});
fastify.listen({ port: 8081, host: '127.0.0.1' });
