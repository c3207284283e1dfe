'use strict';
// Applies variables that Node reads as it starts, because a function's variables come
// later. UV_THREADPOOL_SIZE is not among them: it takes effect as long as the driver
// starts no thread of the pool while it is blank.

const fs = require('fs');

/** Applies the variables in the environment. */
function apply(names) {
  const given = (name) => names.includes(name) && process.env[name] !== undefined;
  if (given('NODE_PATH')) require('module')._initPaths();
  if (given('NODE_EXTRA_CA_CERTS')) trust(process.env.NODE_EXTRA_CA_CERTS);
  if (given('NODE_NO_WARNINGS') && process.env.NODE_NO_WARNINGS === '1') process.removeAllListeners('warning');
}

/** Adds the certificates in a file to those that connections trust by default. */
function trust(file) {
  const tls = require('tls');
  let certificates;
  try {
    certificates = fs.readFileSync(file, 'latin1').match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
    if (certificates === null) throw new Error('it has none');
    for (const text of certificates) new (require('crypto').X509Certificate)(text);
  } catch (e) {
    console.error(`Warning: Ignoring extra certs from \`${file}\`, load failed: ${e.message}`); // like Node
    return;
  }
  if (tls.setDefaultCACertificates) {
    tls.setDefaultCACertificates([...tls.getCACertificates('default'), ...certificates]);
    return;
  }
  const { createSecureContext } = tls;
  let shared; // most connections are alike, and reading all certificates takes long
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

// Those of a connection's options that belong to its context.
const OWN = [
  'ALPNCallback', 'SNICallback', 'allowPartialTrustChain', 'ca', 'cert', 'ciphers', 'clientCertEngine', 'crl', 'dhparam', 'ecdhCurve', 'honorCipherOrder',
  'key', 'maxVersion', 'minVersion', 'passphrase', 'pfx', 'privateKeyEngine', 'privateKeyIdentifier', 'secureOptions', 'secureProtocol', 'sessionIdContext',
  'sessionTimeout', 'sigalgs', 'ticketKeys',
];

module.exports = { apply };
