"""What bench-scripts/compare measures: kinds of load, the peers of each, and the targets."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of load; the targets are the issue's, for the processor time against HAProxy and the floor."""

    title: str
    path: str = "/100"
    conns: int = 64
    kind: str = "closed"
    upload_bytes: int = 0
    headers: tuple = ()
    is_large: bool = False
    variants: tuple = ("corelane", "floor", "haproxy", "nginx")
    haproxy_target: float | None = None
    floor_target: float | None = None
    log_target: float | None = None


NO_FLOOR = ("corelane", "haproxy", "nginx")
LARGE = ("corelane", "floor", "haproxy", "haproxy-pipes", "nginx")
CASES = {
    "100B-8": Case("100 B, 8 connections", conns=8, haproxy_target=0.78, floor_target=1.08),
    "100B-64": Case("100 B, 64 connections", haproxy_target=0.72, floor_target=1.08),
    "100B-512": Case("100 B, 512 connections", conns=512, haproxy_target=0.62, floor_target=1.10),
    "100B-2000": Case("100 B, 2000 connections", conns=2000, haproxy_target=0.52, floor_target=1.15),
    "10kB": Case("10 kB down, 32 connections", "/10000", 32, haproxy_target=0.72),
    "100kB": Case("100 kB down, 32 connections", "/100000", 32, is_large=True, variants=LARGE, haproxy_target=0.75),
    "1MB": Case("1 MB down, 32 connections", "/1000000", 32, is_large=True, variants=LARGE, haproxy_target=0.40),
    "10MB": Case("10 MB down, 32 connections", "/10000000", 32, is_large=True, variants=LARGE, haproxy_target=0.40),
    "up-1MB": Case("1 MB up, 32 connections", "/100", 32, upload_bytes=1_000_000, is_large=True, variants=LARGE,
                   haproxy_target=0.50),
    "up-10MB": Case("10 MB up, 32 connections", "/100", 32, upload_bytes=10_000_000, is_large=True, variants=LARGE),
    "chunked": Case("10 kB in 3 chunks, 64 connections", "/chunked/10000"),
    # Against the better of HAProxy and nginx. The floor keeps no connection to a backend: no bound here.
    "close": Case("Connection: close, 100 B, 64", headers=("Connection: close",), variants=NO_FLOOR,
                  haproxy_target=0.85),
    "epoll": Case("io_uring or epoll, 100 B, 64", variants=("corelane", "corelane-epoll")),
    "workers": Case("1 and 2 workers, 100 B, 64",
                    variants=("corelane", "corelane-2", "haproxy", "haproxy-2")),
    # In the common format, to a file on disk: corelane alone.
    "access-log": Case("access log off and on, 100 B, 64", variants=("corelane", "corelane-log"), log_target=1.05),
    "open-loop": Case("100 B at a fixed rate, 64", kind="open"),
    "idle": Case("4000 idle clients", conns=4000, kind="idle", variants=NO_FLOOR),
    "busy-idle": Case("4000 busy clients that go idle", conns=4000, kind="busy", variants=NO_FLOOR),
}
PEERS = ["corelane", "floor", "haproxy", "nginx"]
FLOOR_MAX = 0.75
MEMORY_TARGET_MB = 8
