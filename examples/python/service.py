"""A service beside the Rust nodes: the same users, sessions and cookie. It needs `pip install 'psycopg[binary]'`.

DATABASE_URL=postgres://localhost/app SESSION_KEY=... PORT=8001 python3 service.py
"""
import base64, hashlib, hmac, http.server, json, os, struct, time, uuid

import psycopg

COOKIE = "__Host-session"


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def head(key):
    return b"\x11" + mac(key, b"pg-session/v1/key-id")[:4]


# The first key signs. The others verify what they have signed before.
KEYS = [base64.b64decode(text, validate=True) for text in os.environ["SESSION_KEY"].split(",")]
SIGNING_KEYS = {head(key): mac(key, b"pg-session/v1/session-token") for key in KEYS}


def issue(session_id, version, seconds):
    signed = head(KEYS[0]) + session_id.bytes + struct.pack(">qQ", version, seconds)
    return base64.urlsafe_b64encode(signed + mac(SIGNING_KEYS[signed[:5]], signed)).decode()


def verify(token):
    """The session's id, if one of the keys has signed this token. Whether the session lives, the database knows."""
    try:
        raw = base64.urlsafe_b64decode(token.encode())
    except ValueError:
        return None
    # The encoding is canonical: no other text is this token.
    if len(raw) != 69 or base64.urlsafe_b64encode(raw).decode() != token:
        return None
    key = SIGNING_KEYS.get(raw[:5])
    if key is None or not hmac.compare_digest(mac(key, raw[:37]), raw[37:]):
        return None
    return uuid.UUID(bytes=raw[5:21])


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(self.read)

    def do_POST(self):
        self.answer({"/login": self.login, "/theme": self.set_theme, "/logout": self.logout}.get(self.path))

    def read(self, database, session_id):
        query = "SELECT user_id, attributes, session_touch(id) FROM session_get(%s)"  # Without accesses, it ends.
        row = database.execute(query, [session_id]).fetchone()
        return (200, {"user": str(row[0]), "attributes": row[1]}) if row else (401, None)

    def set_theme(self, database, session_id):
        database.execute("SELECT session_set(%s, 'theme', to_jsonb(%s::text))", [session_id, self.body()])
        return 204, None

    def login(self, database, old_id):  # Check the password first. The user's old session ends.
        if old_id:
            database.execute("SELECT session_end(%s, 'logout')", [old_id])
        new_id = database.execute("SELECT session_create(session_user_of(%s::text))", [self.body()])
        return 204, issue(new_id.fetchone()[0], 1, int(time.time()))

    def logout(self, database, session_id):
        database.execute("SELECT session_end(%s, 'logout')", [session_id])
        return 204, ""

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")

    def token(self):  # Not http.cookies: it finds none if one of another application is malformed.
        pairs = [pair.strip(" ").partition("=") for pair in self.headers.get("Cookie", "").split(";")]
        return next((value for name, _, value in pairs if name == COOKIE), "")

    def answer(self, handler):
        session_id = verify(self.token())
        if handler is None or (session_id is None and handler != self.login):
            return self.send(404 if handler is None else 401, None)
        try:
            with psycopg.connect(os.environ["DATABASE_URL"]) as database:  # One transaction; use a pool.
                status, body = handler(database, session_id)
        except psycopg.Error as error:
            status, body = {"PS002": 401, "PS004": 400, "PS006": 400}.get(error.sqlstate, 503), None
        self.send(status, body)

    def send(self, status, body):
        self.send_response(status)
        if isinstance(body, str):
            end = "" if body else "; Max-Age=0"
            self.send_header("Set-Cookie", f"{COOKIE}={body}; Path=/; Secure; HttpOnly; SameSite=Lax{end}")
        text = json.dumps(body).encode() if isinstance(body, dict) else b""
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
