'use strict';
// The way out of a sandbox without a network: the proxy on a Unix socket. Programs that go by
// the environment find it at a port on loopback. http, https and fetch do not, so this makes them
// use it.

const http = require('http');
const https = require('https');
const net = require('net');
const tls = require('tls');

const HEAD_LIMIT = 64 << 10; // bytes of the proxy's answer to CONNECT

/** Makes connections go through the proxy's socket at path. */
async function openWay(path) {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = net.connect({ path, allowHalfOpen: true });
    pass(near, far);
    pass(far, near);
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port: 0, backlog: 128 }, resolve);
  });
  const url = `http://127.0.0.1:${server.address().port}`;
  const told = { HTTP_PROXY: url, HTTPS_PROXY: url, NO_PROXY: 'localhost,127.0.0.1,::1' };
  for (const [name, value] of Object.entries(told)) process.env[name] = process.env[name.toLowerCase()] = value;
  process.env.NODE_USE_ENV_PROXY = '1'; // for Node processes that the function starts

  leadAgents(path, http.Agent.prototype, (socket) => socket);
  leadAgents(path, https.Agent.prototype, (socket, agent, direct, options) => direct.call(agent, { ...options, socket }));
  leadFetch(path);
}

function pass(from, to) {
  from.pipe(to);
  from.on('error', () => to.destroy());
}

// Servers of the function itself are reached without a proxy.
const isLocal = (host) => !host || /^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/i.test(host);

/** Connects to a host by CONNECT. */
function tunnel(path, host, port, done) {
  const socket = net.connect({ path });
  let head = '';
  const fail = (e) => {
    settle();
    socket.destroy();
    done(e);
  };
  const settle = () => socket.off('readable', read).off('error', fail).off('end', cut);
  const cut = () => fail(new Error(`the proxy broke off while connecting to ${host}:${port}`));
  const read = () => {
    const data = socket.read();
    if (data === null) return;
    head += data.toString('latin1');
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (head.length > HEAD_LIMIT) cut();
      return;
    }
    const [, status, reason] = /^HTTP\/1\.[01] (\d{3}) ?([^\r]*)/.exec(head) ?? [];
    if (status !== '200') {
      fail(Object.assign(new Error(reason || `the proxy answered ${status}`), { code: 'ECONNREFUSED', statusCode: Number(status) }));
      return;
    }
    settle();
    if (end + 4 < head.length) socket.unshift(Buffer.from(head.slice(end + 4), 'latin1'));
    done(null, socket);
  };
  const target = `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}`;
  socket.on('error', fail).on('end', cut).on('readable', read);
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
}

/** Makes all agents of a kind connect through the proxy, including those of libraries. */
function leadAgents(path, prototype, finish) {
  const direct = prototype.createConnection;
  prototype.createConnection = function createConnection(options, done) {
    if (typeof done !== 'function' || typeof options !== 'object' || options.socketPath || isLocal(options.host)) {
      return direct.apply(this, arguments);
    }
    tunnel(path, options.host, options.port, (e, socket) => {
      if (e) return done(e);
      try {
        done(null, finish(socket, this, direct, options));
      } catch (thrown) { // tls.connect throws if it cannot use the options
        socket.destroy();
        done(thrown);
      }
    });
  };
}

/** Makes fetch connect through the proxy, once the function first uses it. Node loads fetch only then, too. */
function leadFetch(path) {
  const plain = globalThis.fetch;
  let led = false;
  globalThis.fetch = function fetch(input, init) {
    if (!led) {
      void globalThis.Response; // loads the client that fetch uses
      const dispatcher = Symbol.for('undici.globalDispatcher.1');
      const Agent = globalThis[dispatcher]?.constructor;
      if (!Agent) throw new Error('this version of Node does not let fetch use a proxy; use https.request');
      globalThis[dispatcher] = new Agent({ connect: (options, done) => connectFetch(path, options, done) });
      led = true;
    }
    return plain(input, init);
  };
}

function connectFetch(path, { hostname, protocol, port, servername }, done) {
  const host = hostname.replace(/^\[|\]$/g, '');
  const secure = protocol === 'https:';
  const finish = (e, socket) => {
    if (e || !secure) return done(e, socket);
    const name = servername || (net.isIP(host) ? undefined : host);
    const wrapped = tls.connect({ socket, servername: name, host, ALPNProtocols: ['http/1.1'] });
    wrapped.once('error', done).once('secureConnect', () => {
      wrapped.off('error', done);
      done(null, wrapped);
    });
  };
  const at = Number(port) || (secure ? 443 : 80);
  if (!isLocal(host)) {
    tunnel(path, host, at, finish);
    return;
  }
  const socket = net.connect({ host, port: at });
  socket.once('error', finish).once('connect', () => {
    socket.off('error', finish);
    finish(null, socket);
  });
}

module.exports = { openWay };
