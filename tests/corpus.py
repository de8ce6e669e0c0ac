#!/usr/bin/env python3
"""build/probe held against every vector of the shared corpus.

corpus.py PROBE CORPUS. Prints a line a set and cmocka's closing lines; exit
status 1 when a vector departs from its expectation (see CORPUS/SOURCES.md).
"""
import collections
import glob
import hashlib
import json
import os
import subprocess
import sys
from decimal import Decimal

PROBE, CORPUS = sys.argv[1], sys.argv[2]
counts = collections.Counter()
departures = []


def probe(*args, lines=None):
    text = None
    if lines is not None:
        text = "".join((line.hex() or "-") + "\n" for line in lines).encode()
    done = subprocess.run([PROBE, *args], input=text, capture_output=True)
    if done.returncode != 0:
        departures.append((args, done.returncode, done.stderr[-500:]))
    return done.stdout


def check(kind, verdict, good, *what):
    counts[kind + " " + verdict] += 1
    if not good:
        departures.append((kind, verdict) + what)


def table(path):
    with open(os.path.join(CORPUS, path), encoding="latin1", newline="\n") as f:
        return [line.rstrip("\n") for line in f if not line.startswith("#")]


def http():
    keys = ["status", "headers", "interim", "framing", "body_len",
            "body_sha256", "trailers", "reusable", "leftover"]
    for path in sorted(glob.glob(CORPUS + "/http/*.expect")):
        with open(path) as f:
            want = json.load(f)
        pieces = "01237" if want["raw_len"] < 20000 else ["0", "997"]
        seen = {probe("http", "--piece", p, path[:-7] + ".raw") for p in pieces}
        got = json.loads(min(seen))
        same = lambda r: all(got.get(k) == r[k] for k in keys if k in r)
        verdict = want["verdict"]
        good = len(seen) == 1
        if verdict == "accept":
            good = good and got["ok"] and same(want["result"])
        elif verdict == "reject":
            good = good and not got["ok"]
        elif got["ok"]:
            good = good and any(same(r) for r in want["allowed"])
        check("http", verdict, good, want["name"])


def sse():
    for path in sorted(glob.glob(CORPUS + "/sse/*.expect")):
        with open(path) as f:
            want = json.load(f)
        seen = {probe("sse", "--piece", p, path[:-7] + ".sse") for p in "01235"}
        lines = [json.loads(line) for line in min(seen).split(b"\n") if line]
        events = lines[:-1]
        digest = hashlib.sha256()
        for event in events:
            data = event["data"].encode()
            digest.update(b"%s\n%d\n%s\n" % (event["type"].encode(), len(data),
                                             data))
        good = len(seen) == 1 and lines[-1]["retry"] == want["retry"]
        good = good and len(events) == want["count"]
        if len(want.get("events") or []) == want["count"]:
            good = good and events == want["events"]
        else:
            good = good and digest.hexdigest() == want["events_sha256"]
        check("sse", want["verdict"], good, path)


def url():
    for name in ("URLS", "URLS_OWN"):
        wants = [json.loads(line) for line in open(f"{CORPUS}/url/{name}.jsonl")]
        inputs = [w["input"].encode("utf-8", "surrogatepass") for w in wants]
        for want, line in zip(wants, probe("url", lines=inputs).split(b"\n")):
            got = None if line == b"reject" else json.loads(line)
            verdict = want["verdict"]
            good = True
            if verdict == "accept":
                good = got is not None and all(
                    got[k] == want[k] for k in ("scheme", "host", "port", "target"))
            elif verdict == "reject":
                good = got is None
            elif got is not None:
                good = any(url_is(got, seen) for seen in want["seen"])
            check("url", verdict, good, want["input"][:80], line)


def url_is(got, seen):
    port = int(seen["port"] or {"http": 80, "https": 443}[seen["scheme"]])
    target = (seen["path"] or "/") + ("?" + seen["query"] if seen["query"] else "")
    return (got["host"], got["port"], got["target"]) == (seen["host"], port, target)


def time():
    for name, args in (("RETRY_AFTER", ["wait", "--now", "1772366400"]),
                       ("RESET", ["reset"])):
        rows = [row.split("\t") for row in table(f"time/{name}.tsv")]
        inputs = [json.loads(row[-1]).encode() for row in rows]
        got = probe(*args, lines=inputs).decode().split("\n")
        for row, line in zip(rows, got):
            good = True
            if row[0] == "accept":
                good = line != "reject" and float(line) == float(row[1])
            elif row[0] == "reject":
                good = line == "reject"
            check("time", row[0], good, name, row, line)


def documents():
    for row in (row.split("\t") for row in table("json/DOCS.tsv")):
        path = f"{CORPUS}/json/doc/{row[0]}"
        head, _, tree = probe("json", path).partition(b"\n")
        accepted = head == path.encode() + b" accept"
        good = {"accept": accepted, "reject": not accepted}.get(row[1], True)
        if accepted and os.path.exists(path + ".tree"):
            with open(path + ".tree", "rb") as f:
                good = good and f.read().strip() == tree.strip()
        if accepted and row[9].startswith("bytes"):
            with open(path, "rb") as f:
                written = probe("json-rewrite", path)
                good = good and written.strip() == f.read().strip()
        check("json document", row[1], good, row[0])


def numbers():
    for name in ("NUMBERS", "NUMBERS_OWN"):
        rows = [row.split("\t", 4) for row in table(f"json/{name}.tsv")]
        inputs = [row[4].encode("latin1") for row in rows]
        got = probe("number", lines=inputs).decode().split("\n")
        for row, line in zip(rows, got):
            part = line.split()
            good = part == ["reject"]
            if row[0] != "reject":
                good = part[:2] == ["accept", row[1]]
                if row[2] in ("i64", "u64"):
                    good = good and part[2:] == [row[2], str(int(row[4]))]
                else:
                    good = good and len(part) == 2
            check("json number", row[0], good, row, line)


def strings():
    rows = [row.split("\t") for row in table("json/STRINGS.tsv")]
    got = probe("string", lines=[bytes.fromhex(row[1]) for row in rows])
    for row, line in zip(rows, got.decode().split("\n")):
        good = line == "reject"
        if row[0] == "accept":
            good = line == "accept " + row[2]
        elif row[0] == "either" and not good:
            good = row[2] in ("!", line[7:])
        check("json string", row[0], good, row, line)


def shortest():
    rows = [row.split("\t") for row in table("json/SHORTEST.tsv")]
    text = "".join(row[0] + "\n" for row in rows).encode()
    done = subprocess.run([PROBE, "shortest"], input=text, capture_output=True)
    for row, line in zip(rows, done.stdout.decode().split("\n")):
        number = Decimal(line).normalize().as_tuple()
        digits = "".join(map(str, number.digits))
        exponent = number.exponent if any(number.digits) else 0
        got = ("-" if number.sign else "") + f"{digits}e{exponent}"
        check("json shortest", "accept", got == row[1], row, line)


for run in (http, sse, url, time, documents, numbers, strings, shortest):
    run()
for kind in sorted(counts):
    print(f"  {kind}: {counts[kind]}")
for departure in departures[:20]:
    print("departs:", *departure)
total = sum(counts.values())
print(f"[  PASSED  ] {total - len(departures)} test(s).")
if departures:
    print(f"[  FAILED  ] {len(departures)} test(s).")
    sys.exit(1)
