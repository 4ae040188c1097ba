// MQTT.js as a device of the simulated platform: connects, posts a property, gets the answer, ends. Usage:
// node mqtt_js_peer.mjs URL VERSION CLIENT_ID USER_NAME PASSWORD PRODUCT_KEY/DEVICE_NAME [CA_FILE]
import { readFileSync } from 'node:fs';
import mqtt from 'mqtt';

const [url, version, clientId, username, password, names, ca] = process.argv.slice(2);
const client = mqtt.connect(url, {
    protocolVersion: Number(version), clientId, username, password, keepalive: 60, reconnectPeriod: 0, clean: true,
    ...(ca ? { ca: readFileSync(ca) } : {}),
});
const fail = (why) => { console.log(`failed: ${why}`); process.exit(1); };
setTimeout(() => fail('nothing came in time'), 20000);
client.on('error', (error) => fail(error.message));
client.on('connect', () => {
    const post = `/sys/${names}/thing/event/property/post`;
    client.on('message', (topic, payload) => {
        const reply = JSON.parse(payload);
        if (topic !== `${post}_reply` || reply.id !== '42') fail(`${topic}: ${payload}`);
        console.log(`code ${reply.code}`);
        client.end(() => process.exit(0));
    });
    client.subscribe(`${post}_reply`, { qos: 1 }, (error, granted) => {
        if (error || granted[0].qos !== 1) return fail('the subscription was not granted');
        client.publish(post, JSON.stringify({ id: '42', version: '1.0', params: { celsius: 21.5 } }), { qos: 1 });
    });
});
