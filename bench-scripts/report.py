"""What came of a run of bench-scripts/compare: its table, its verdicts and its chart."""

import statistics

import bench
import chart
from cases import CASES, MEMORY_TARGET_MB, PEERS

# Below this share of its cores, the proxy waits for the load.
SATURATED_PERCENT = 95


class Comparison(bench.Record):
    """The record of a run: each measurement in the CSV file, their summary in the text."""

    def row(self, *values):
        self.rows.append(values)
        cells = ("" if value is None else f"{value:{form}}" for value, (_, form) in zip(values, self.columns))
        padded = (f"{cell:{bench.place_of(form)}}" for cell, (_, form) in zip(cells, self.columns))
        print("  ".join(padded).rstrip(), flush=True)

    def values(self, case, peer, column):
        """Of each round that has one."""
        titles = [title for title, _ in self.columns]
        at = titles.index(column)
        return {row[0]: row[at] for row in self.rows if row[1:3] == (case, peer) and row[at] is not None}

    def median(self, case, peer, column):
        values = self.values(case, peer, column).values()
        return statistics.median(values) if values else None

    def ratios(self, case, peer, *others, column="us/request"):
        """A peer's value by the least one of the others, in each round that has both."""
        ours, theirs = self.values(case, peer, column), [self.values(case, other, column) for other in others]
        rounds = [number for number in ours if any(number in values for values in theirs)]
        return [ours[number] / least for number in rounds
                if (least := min(values[number] for values in theirs if number in values)) > 0]


def text_of(ratios, target=None):
    if not ratios:
        return ""
    middle = statistics.median(ratios)
    text = f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    if target is not None:
        text += f" <= {target:.2f} {'met' if middle <= target else 'MISSED'}"
    return text


def number_of(value, form):
    return "" if value is None else f"{value:{form}}"


def summarise_load(record, cases):
    record.say("")
    record.say("Medians of the rounds; ratios of processor time per request: their median, least and greatest, the target.")
    record.say("")
    record.say(f"{'case':36} {'peer':14} {'us/request':>10} {'÷ haproxy':34} {'÷ floor':34} {'requests/s':>10} "
               f"{'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>9} {'busy %':>6} {'MB':>6}")
    for name in cases:
        case = CASES[name]
        if case.kind in ("idle", "busy"):
            continue
        for variant in case.variants:
            micros = record.median(name, variant, "us/request")
            if micros is None:
                continue
            is_ours = variant == "corelane"
            others = ("haproxy", "nginx") if name == "close" and is_ours else ("haproxy",)
            by_haproxy = "" if variant == "haproxy" else text_of(
                record.ratios(name, variant, *others), case.haproxy_target if is_ours else None)
            by_floor = "" if variant == "floor" else text_of(
                record.ratios(name, variant, "floor"), case.floor_target if is_ours else None)
            busy = record.median(name, variant, "busy %")
            cells = [number_of(record.median(name, variant, column), form) for column, form in
                     (("requests/s", "10.0f"), ("p50 ms", "8.3f"), ("p99 ms", "8.3f"), ("p99.9 ms", "9.3f"),
                      ("busy %", "6.1f"), ("loaded MB", "6.1f"))]
            is_bound = case.kind == "closed" and busy < SATURATED_PERCENT
            record.say(f"{case.title:36} {variant:14} {micros:10.2f} {by_haproxy:34} {by_floor:34} "
                       f"{' '.join(cells)}{'  load-bound' if is_bound else ''}")
    record.say("")
    record.say("load-bound: the load's core was busy before the proxy's; compare its processor time per request, not")
    record.say("the requests a second. close: ÷ the better of HAProxy and nginx for corelane. Large bodies: HAProxy")
    record.say("splices, haproxy-pipes with pipes of 256 KiB instead of 64; floor and nginx copy through 256 KiB.")
    record.say("MB: resident memory under load, in all processes.")


def summarise_special(record, cases, rate):
    if "open-loop" in cases:
        record.say("")
        record.say(f"Latency at {rate} requests/s (corelane's ÷ the better peer's: target 1.00 for p50 and p99)")
        for column in ("p50 ms", "p99 ms", "p99.9 ms"):
            target = None if column == "p99.9 ms" else 1.0
            ratios = record.ratios("open-loop", "corelane", "haproxy", "nginx", column=column)
            record.say(f"  {column:9} {text_of(ratios, target)}")
        for variant in CASES["open-loop"].variants:
            done = record.median("open-loop", variant, "requests/s")
            if done is not None and done < 0.98 * rate:
                record.say(f"  {variant}: {done:.0f}/s only: its latencies say that it, or the load, cannot keep up")
    if "epoll" in cases:
        record.say("")
        record.say(f"epoll ÷ io_uring: {text_of(record.ratios('epoll', 'corelane-epoll', 'corelane'))}")
    if "access-log" in cases:
        record.say("")
        ratios = record.ratios("access-log", "corelane-log", "corelane")
        record.say(f"access log on ÷ off: {text_of(ratios, CASES['access-log'].log_target)}")
    if "workers" in cases:
        record.say("")
        record.say("Processor time per request, 2 workers ÷ 1; the second one shares its core with load and backend")
        growth = {peer: record.ratios("workers", f"{peer}-2", peer) for peer in ("corelane", "haproxy")}
        for peer, ratios in growth.items():
            record.say(f"  {peer:8}           {text_of(ratios)}")
        record.say(f"  corelane ÷ haproxy {text_of([ours / theirs for ours, theirs in zip(*growth.values())], 1.0)}")


def summarise_memory(record, cases):
    for name, target in (("idle", "at most HAProxy's"), ("busy-idle", f"within {MEMORY_TARGET_MB} MB of the beginning")):
        if name not in cases:
            continue
        record.say("")
        record.say(f"Memory, {CASES[name].title}: {target}")
        theirs = record.median(name, "haproxy", "kB/client")
        for variant in CASES[name].variants:
            begin, peak, after, each, settled = (record.median(name, variant, column) for column in
                                                 ("begin MB", "loaded MB", "after MB", "kB/client", "settled s"))
            if begin is None:
                continue
            verdict = ""
            if name == "busy-idle":
                verdict = "within" if after - begin <= MEMORY_TARGET_MB else "BEYOND"
            elif variant == "corelane" and theirs is not None:
                verdict = "met" if each <= theirs else "MISSED"
            record.say(f"  {variant:9} {begin:7.1f} MB, then {peak:7.1f}, {after:7.1f} after {settled:4.1f} s: "
                       f"{after - begin:+6.1f} MB, {each:6.2f} kB a client  {verdict}")
            if variant == "corelane":
                parked = (f"idle clients parked, and {peak - after:.1f} MB given back, {settled:.1f} s after the last "
                          "answer" if peak - after > 0.1 * (peak - begin) else "no memory of idle clients given back")
                record.say(f"  {'':9} {parked}")


def summarise_missing(record, args):
    """What a reader could look for in vain."""
    lines = []
    for name in args.cases:
        for variant in dict.fromkeys([*CASES[name].variants, *PEERS]):
            if record.median(name, variant, "us/request") is not None:
                continue
            why = ("not of this case" if variant not in CASES[name].variants else
                   "not asked for" if variant.split("-")[0] not in args.peers else "FAILED in every round")
            lines.append(f"  {CASES[name].title}: {variant} {why}")
    if lines:
        record.say("")
        record.say("Not measured")
    for line in lines:
        record.say(line)


def draw(record, cases):
    titles = [name for name in cases if CASES[name].kind in ("closed", "open") and name not in ("epoll", "access-log", "workers")]
    ratios, micros = {}, {}
    for peer in PEERS:
        by_case = {name: record.ratios(name, peer, "haproxy") for name in titles}
        ratios[peer] = {name: statistics.median(values) for name, values in by_case.items() if values}
        micros[peer] = {name: record.median(name, peer, "us/request") for name in titles
                        if not CASES[name].is_large and record.median(name, peer, "us/request") is not None}
    small = [name for name in titles if not CASES[name].is_large]
    return chart.svg([
        chart.Panel("Processor time of the proxy per request, microseconds", small, micros),
        chart.Panel("The same, as a share of HAProxy's", titles, ratios),
    ], "less is better; medians of the rounds of one run")
