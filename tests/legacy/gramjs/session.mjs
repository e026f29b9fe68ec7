// Writes a session as GramJS does. Standard input: {"dc", "address", "port", "key"}, the key in base64; output: the string.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// The packages are in the user's cache, not beside this file.
const require = createRequire(`${process.env.GRAMJS}/package.json`);
const { StringSession } = require("telegram/sessions");
const { AuthKey } = require("telegram/crypto/AuthKey");

const given = JSON.parse(readFileSync(0, "utf8"));
const key = new AuthKey();
await key.setKey(Buffer.from(given.key, "base64"));
const session = new StringSession("");
session.setDC(given.dc, given.address, given.port);
session.setAuthKey(key);
process.stdout.write(session.save());
process.exit(0); // its logger keeps a timer
