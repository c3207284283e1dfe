'use strict';
// Variables that Node reads as it starts, which is before a function has its own:
// what makes them count all the same. UV_THREADPOOL_SIZE needs nothing but that
// no thread of the pool is started while the driver is blank.

const fs = require('fs');

/** Makes the environment's variables count. */
function apply(names) {
  const given = (name) => names.includes(name) && process.env[name] !== undefined;
  if (given('NODE_PATH')) require('module')._initPaths();
  if (given('NODE_EXTRA_CA_CERTS')) trust(process.env.NODE_EXTRA_CA_CERTS);
  if (given('NODE_NO_WARNINGS') && process.env.NODE_NO_WARNINGS === '1') process.removeAllListeners('warning');
}

/** Adds a file's certificates to those that connections trust unless they say which. */
function trust(file) {
  const tls = require('tls');
  let certificates;
  try {
    certificates = fs.readFileSync(file, 'latin1').match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
    if (certificates === null) throw new Error('it has none');
    for (const text of certificates) new (require('crypto').X509Certificate)(text);
  } catch (e) {
    console.error(`Warning: Ignoring extra certs from \`${file}\`, load failed: ${e.message}`); // as Node does
    return;
  }
  if (tls.setDefaultCACertificates) {
    tls.setDefaultCACertificates([...tls.getCACertificates('default'), ...certificates]);
    return;
  }
  const { createSecureContext } = tls;
  let shared; // for most connections are alike, and reading all certificates takes long
  tls.createSecureContext = (options = {}) => {
    const plain = OWN.every((name) => options[name] === undefined);
    if (plain && shared) return shared;
    const made = createSecureContext(options);
    if (!options.ca) for (const text of certificates) made.context.addCACert(text);
    if (plain) shared = made;
    return made;
  };
  require('module').syncBuiltinESMExports();
}

// What of a connection's options is its context's.
const OWN = [
  'ALPNCallback', 'SNICallback', 'allowPartialTrustChain', 'ca', 'cert', 'ciphers', 'clientCertEngine', 'crl', 'dhparam', 'ecdhCurve', 'honorCipherOrder',
  'key', 'maxVersion', 'minVersion', 'passphrase', 'pfx', 'privateKeyEngine', 'privateKeyIdentifier', 'secureOptions', 'secureProtocol', 'sessionIdContext',
  'sessionTimeout', 'sigalgs', 'ticketKeys',
];

module.exports = { apply };
