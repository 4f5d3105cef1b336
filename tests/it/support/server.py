"""A backend for the tests: GET /length/N and /chunked/N send N bytes, PUT answers the SHA-256 of what came."""
import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The same bytes as in bodies.rs: its period is no power of two, so that a shifted piece changes the sum.
BLOCK = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(2039))


def pieces(length):
    while length > 0:
        piece = BLOCK[:length]
        length -= len(piece)
        yield piece


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(b"ok")
            return
        _, framing, length = self.path.split("/")
        self.send_response(200)
        if framing == "length":
            self.send_header("Content-Length", length)
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces(int(length)):
            if framing == "length":
                self.wfile.write(piece)
            else:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self):
        digest = hashlib.sha256()
        for piece in self.body():
            digest.update(piece)
        self.answer(digest.hexdigest().encode())

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield from self.exactly(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield from self.exactly(size)
            assert self.rfile.readline() == b"\r\n"
        assert self.rfile.readline() == b"\r\n"

    def exactly(self, left):
        while left > 0:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                raise EOFError("the body was cut")
            left -= len(piece)
            yield piece

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
print("listening on 127.0.0.1:%d" % server.server_address[1], flush=True)
sys.stdout.flush()
server.serve_forever()
