# Reads lines "CASE CLIENT name=value ..." and prints the table. Every figure
# is the median of its runs; a ratio is the median of the ratios of the runs
# that stood beside each other.
function median(list, n,    i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
            t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
        }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

{
    key = $1 SUBSEP $2
    if ($3 > reps[key])
        reps[key] = $3
    for (i = 4; i <= NF; i++) {
        split($i, pair, "=")
        value[key, $3, pair[1]] = pair[2]
    }
}

# One run's figure, "" if the run failed. kind: a name from the runs; "slope
# NAME": its growth a request between CASE_short and CASE_long; "share": percent
# of workers/latency.
function figure(case_, client, rep, kind,    a, b, name, part) {
    if (kind ~ /^slope /) {
        name = substr(kind, 7)
        a = case_ "_short" SUBSEP client SUBSEP rep
        b = case_ "_long" SUBSEP client SUBSEP rep
        if (!((a, name) in value) || !((b, name) in value))
            return ""
        return (value[b, name] - value[a, name]) / \
            (value[b, "requests"] - value[a, "requests"])
    }
    a = case_ SUBSEP client SUBSEP rep
    if (!((a, "wall_us") in value))
        return ""
    if (kind == "share") {
        split(case_, part, "_") # latency_MS_WORKERS
        return 100 * value[a, "requests"] / value[a, "wall_us"] * \
            1000000 / (part[3] * 1000 / part[2])
    }
    return (a, kind) in value && value[a, kind] >= 0 ? value[a, kind] : ""
}
function count(case_, client, kind) {
    return reps[(kind ~ /^slope / ? case_ "_long" : case_) SUBSEP client] + 0
}
function middle(case_, client, kind,    n, i, x, list) {
    for (i = 1; i <= count(case_, client, kind); i++)
        if ((x = figure(case_, client, i, kind)) != "")
            list[++n] = x
    return n ? median(list, n) : ""
}
function ratio(case_, peer, kind,    n, i, x, y, list) {
    for (i = 1; i <= count(case_, "ours", kind); i++) {
        x = figure(case_, "ours", i, kind)
        y = figure(case_, peer, i, kind)
        if (x != "" && y != "" && y >= 0.1)
            list[++n] = x / y
    }
    return n ? median(list, n) : ""
}

function number(x, scale, digits) {
    if (x == "")
        return "-"
    x = sprintf("%." digits "f", x / scale)
    if (x + 0 == 0)
        sub(/^-/, "", x)
    return x
}
function against(r, limit) {
    if (r == "") return "-"
    if (limit == "") return sprintf("%.2f", r)
    return sprintf("%.2f (<=%.2f)%s", r, limit, r > limit ? " MISSED" : "")
}
# digits: behind the point. curl_limit, bare_limit: of the ratios. goal: of
# our own figure, "<=" or ">=" and a number.
function row(title, case_, kind, scale, digits, curl_limit, bare_limit, goal,
             ours, want, bad) {
    ours = middle(case_, "ours", kind)
    want = substr(goal, 3) + 0
    bad = ours != "" && goal != "" && \
        (goal ~ /^<=/ ? number(ours, scale, digits) + 0 > want \
                       : number(ours, scale, digits) + 0 < want)
    printf layout, title, number(ours, scale, digits),
        number(middle(case_, "curl", kind), scale, digits),
        number(middle(case_, "bare", kind), scale, digits),
        against(ratio(case_, "curl", kind), curl_limit),
        against(ratio(case_, "bare", kind), bare_limit),
        goal (bad ? " MISSED" : "")
}

END {
    layout = "%-38s %9s %9s %9s  %-20s %-20s %s\n"
    printf layout, "whole process, median", "gptner", "libcurl", "bare TLS",
        "gptner/libcurl", "gptner/bare", "goal"
    for (w = 10; w <= 100; w = w == 10 ? 20 : w * 5)
        row("CPU a request, " w " workers, us", "cpu_" w, "slope cpu_us", 1, 2,
            0.70, 1.25)
    row("the same with TLS 1.3 allowed, 10, us", "tls13", "slope cpu_us", 1, 2)
    row("start 100 workers, RSA, CPU ms", "start_rsa", "cpu_us", 1000, 1, 0.45)
    row("start 100 workers, RSA, wall ms", "start_rsa", "wall_us", 1000, 1)
    row("  connections opened", "start_rsa", "connections", 1, 0)
    row("  sessions resumed", "start_rsa", "resumed", 1, 0, "", "", ">=99")
    row("start 100 workers, P-256, CPU ms", "start_ec", "cpu_us", 1000, 1)
    row("start 100, TLS 1.3 allowed, CPU ms", "start_tls13", "cpu_us", 1000, 1)
    row("allocations a request", "alloc", "slope allocs", 1, 2, "", "", "<=1")
    row("bytes allocated a request", "alloc", "slope bytes", 1, 0)
    row("peak memory, 10 workers, MiB", "cpu_10_long", "peak_kib", 1024, 2, "",
        "", "<=5")
    row("peak memory, 100 workers, MiB", "cpu_100_long", "peak_kib", 1024, 2,
        "", "", "<=13")
    row("  10 workers, system CA bundle, MiB", "bundle_10", "peak_kib", 1024, 2)
    row("  100 workers, system CA bundle, MiB", "bundle_100", "peak_kib", 1024,
        2)
    split("20_1 20_5 20_10 20_20 20_100 200_1 200_20 200_100", latencies, " ")
    for (i = 1; i <= 8; i++) {
        split(latencies[i], part, "_")
        if (middle("latency_" latencies[i], "bare", "share") != "")
            row("% of workers/latency, " part[1] " ms, " part[2],
                "latency_" latencies[i], "share", 1, 1, "", "",
                ">=" (part[1] == 20 ? (part[2] < 100 ? 96 : 93) \
                                    : (part[2] < 100 ? 98 : 95)))
    }
}
