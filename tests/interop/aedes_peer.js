// Aedes, a broker of npm, for aedes.hpp: node SCRIPT PORT. The package, 0.51 or newer, is found through NODE_PATH.

'use strict';

const net = require('net');
const aedes = require('aedes');

async function serve() {
  const broker = await (aedes.Aedes ?? aedes).createBroker();
  net.createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1');
}

serve();
