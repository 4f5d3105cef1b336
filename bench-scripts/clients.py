"""Clients of bench-scripts/compare whose connections stay open: idle from the first, or after they were busy."""

import selectors
import socket
import time

REQUEST = b"GET /100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"x" * 100


def answers(port):
    """Whether a whole response comes."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as conn:
            conn.sendall(REQUEST)
            received = b""
            while not received.endswith(BODY):
                part = conn.recv(4096)
                if not part:
                    return False
                received += part
            return received.startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Clients:
    """Clients in this process, each with one connection that stays open."""

    def __init__(self, count, port):
        self.failed = 0
        self.count, self.port = count, port
        self.socks = []

    def connect(self):
        self.socks.append(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        return self.socks[-1]

    def ask_in_turn(self):
        """Each connects and asks once; to connect all first takes longer than a proxy waits for a head."""
        while len(self.socks) < self.count:
            sock = self.connect()
            sock.sendall(REQUEST)
            received = b""
            while not received.endswith(BODY):
                part = sock.recv(4096)
                if not part:
                    break
                received += part
            self.failed += not received.startswith(b"HTTP/1.1 200")

    def ask_at_once(self, seconds):
        """All of them ask, again and again; returns how many answers came when all have theirs."""
        while len(self.socks) < self.count:
            self.connect()
        end, count, waiting = time.monotonic() + seconds, 0, len(self.socks)
        received = {sock: b"" for sock in self.socks}
        with selectors.DefaultSelector() as selector:
            for sock in self.socks:
                selector.register(sock, selectors.EVENT_READ)
                sock.sendall(REQUEST)
            while waiting > 0:
                ready = selector.select(timeout=10)
                if not ready:
                    self.failed += waiting
                    break
                for key, _ in ready:
                    sock = key.fileobj
                    try:
                        part = sock.recv(4096)
                    except ConnectionError:
                        part = b""
                    received[sock] += part
                    if part and not received[sock].endswith(BODY):
                        continue
                    is_whole = part and received[sock].startswith(b"HTTP/1.1 200")
                    self.failed += not is_whole
                    count += 1
                    received[sock] = b""
                    if is_whole and time.monotonic() < end:
                        sock.sendall(REQUEST)
                    else:
                        selector.unregister(sock)
                        waiting -= 1
        return count

    def close(self):
        for sock in self.socks:
            sock.close()
