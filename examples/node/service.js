// A service beside the Rust nodes: the same users, sessions and cookie. It needs `npm install pg`.
//
// DATABASE_URL=postgres://localhost/app SESSION_KEY=... PORT=8002 node service.js
const { createHmac, timingSafeEqual } = require("node:crypto");
const http = require("node:http");
const { Pool } = require("pg");

const COOKIE = "__Host-session";
const mac = (key, message) => createHmac("sha256", key).update(message).digest();
const head = (key) => Buffer.concat([Buffer.from([0x11]), mac(key, "pg-session/v1/key-id").subarray(0, 4)]);
// The first key signs. The others verify what they have signed before.
const KEYS = process.env.SESSION_KEY.split(",").map((text) => Buffer.from(text, "base64"));
const signingKey = (key) => mac(key, "pg-session/v1/session-token");

function issue(id, version, seconds) {
  const numbers = Buffer.alloc(16);
  numbers.writeBigInt64BE(BigInt(version), 0);
  numbers.writeBigUInt64BE(BigInt(seconds), 8);
  const signed = Buffer.concat([head(KEYS[0]), Buffer.from(id.replaceAll("-", ""), "hex"), numbers]);
  return Buffer.concat([signed, mac(signingKey(KEYS[0]), signed)]).toString("base64url");
}

// The session's id, if one of the keys has signed this token. Whether the session lives, the database knows.
function verify(token) {
  const raw = Buffer.from(token, "base64url");
  // The encoding is canonical: no other text is this token.
  if (raw.length !== 69 || raw.toString("base64url") !== token) return null;
  const key = KEYS.find((key) => raw.subarray(0, 5).equals(head(key)));
  if (!key || !timingSafeEqual(mac(signingKey(key), raw.subarray(0, 37)), raw.subarray(37))) return null;
  return raw.toString("hex", 5, 21).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

const call = async (database, text, values) => (await database.query(text, values)).rows[0];

async function read(database, id) {
  const text = "SELECT user_id, attributes, session_touch(id) FROM session_get($1)"; // Without accesses, it ends.
  const row = await call(database, text, [id]);
  return row ? { status: 200, body: { user: row.user_id, attributes: row.attributes } } : { status: 401 };
}

async function setTheme(database, id, theme) {
  await call(database, "SELECT session_set($1, 'theme', to_jsonb($2::text))", [id, theme]);
  return { status: 204 };
}

async function login(database, oldId, user) { // Check the password first. The user's old session ends.
  if (oldId) await call(database, "SELECT session_end($1, 'logout')", [oldId]);
  const { id } = await call(database, "SELECT session_create(session_user_of($1::text)) AS id", [user]);
  return { status: 204, cookie: issue(id, 1, Math.floor(Date.now() / 1000)) };
}

async function logout(database, id) {
  await call(database, "SELECT session_end($1, 'logout')", [id]);
  return { status: 204, cookie: "" };
}

function serve(database) {
  const handlers = { "GET /": read, "POST /theme": setTheme, "POST /login": login, "POST /logout": logout };
  return http.createServer(async (request, response) => {
    const handler = handlers[`${request.method} ${request.url}`];
    const cookies = (request.headers.cookie ?? "").split("; ").map((text) => text.split("="));
    const token = cookies.find(([name]) => name === COOKIE)?.[1];
    const id = token ? verify(token) : null;
    let body = "", answer = { status: handler ? 401 : 404 };
    try {
      for await (const part of request.setEncoding("utf8")) body += part;
      if (handler && (id || handler === login)) answer = await handler(database, id, body);
    } catch (error) {
      answer = { status: { PS002: 401, PS004: 400, PS006: 400 }[error.code] ?? 503 };
    }
    const headers = { "Cache-Control": "no-store" };
    const end = answer.cookie ? "" : "; Max-Age=0";
    if (answer.cookie !== undefined)
      headers["Set-Cookie"] = `${COOKIE}=${answer.cookie}; Path=/; Secure; HttpOnly; SameSite=Lax${end}`;
    response.writeHead(answer.status, headers).end(answer.body && JSON.stringify(answer.body));
  });
}

function start() {
  const database = new Pool({ connectionString: process.env.DATABASE_URL });
  database.on("error", (error) => console.error(error.message)); // An idle connection has ended; the pool makes another.
  const server = serve(database);
  server.listen(process.env.PORT, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
}

module.exports = { issue, verify, start };
if (require.main === module) start();
