// Finds the prices of gptner_tokens_estimate(): fit.mjs DIR [< weights.json].
//
// DIR holds texts of many languages, KIND.txt each; documents are parted by a
// NUL, or are eight lines each. weights.json gives kinds other weights than 1.
// The texts are cut into pieces as o200k cuts them; each piece is labelled with
// its tokens and taken apart as gptner.h does it; the prices are those of least
// squares, where a word never costs less than one token. Printed are the tables
// for gptner.h, and the error of each kind on every fifth document, which takes
// no part in the fit.
//
// The prices in gptner.h come from 4 MB of texts that are not in this tree:
// sentences in 15 languages (Universal Dependencies: PUD, GSD, EWT, VTB), short
// messages (W-NUT 17), the message catalogs, manual pages and sources that a
// Debian machine has (30 languages; C, Python, JavaScript, JSON, Markdown, YAML,
// HTML, shell). English and code weighed 1 to 3, other languages 0.3 to 1.
// Changed by hand: Han 57 to 55 and OLDHAN 63 to 65, as least squares let long
// runs weigh too much.
import fs from "node:fs";
import { encode } from "gpt-tokenizer/encoding/o200k_base";

const dir = process.argv[2];
const weights = process.stdin.isTTY
    ? {}
    : JSON.parse(fs.readFileSync(0, "utf8") || "{}");
const header = fs.readFileSync(
    new URL("../../gptner.h", import.meta.url),
    "utf8",
);
const ranges = [
    ...header
        .slice(header.indexOf("gpn_tok_ranges[]"))
        .split("};")[0]
        .matchAll(/0x([0-9a-f]+)u << 8 \| GPN_TOK_(\w+)/g),
].map((m) => [parseInt(m[1], 16), m[2]]);
const rows =
    "BAD PUNCT SYMBOL EMOJI CYRILLIC GREEK HEBREW ARABIC NAGARI INDIC THAI HANGUL KANA HANJA HAN OLDHAN FARCYR OTHER".split(
        " ",
    );
const letters = rows.slice(4).concat("LATIN");
const flat = "BAD PUNCT SYMBOL EMOJI HANJA".split(" "); // one price after the first
const even = "HAN OLDHAN FARCYR".split(" "); // one price for all
const AFTER = { space: 27, none: 28, mark: 29, apostrophe: 30 };
const suffix = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?";
const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}",
    lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const cuts = new RegExp(
    `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${suffix}|[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${suffix}` +
        "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "gu",
);

function kindOf(char) {
    const cp = char.codePointAt(0);
    if (cp >= 128) return ranges.findLast(([from]) => from <= cp)?.[1] ?? "BAD";
    if (/[A-Za-z]/.test(char)) return "LATIN";
    if (/[0-9]/.test(char)) return "DIGIT";
    if (/[\r\n]/.test(char)) return "BREAK";
    return /[ \t\v\f]/.test(char) ? "SPACE" : "MARK";
}

// ---- what a piece is made of: runs of { features, least price } ----

const ids = new Map();
const id = (name) => ids.get(name) ?? (ids.set(name, ids.size), ids.size - 1);
for (let r = 0; r < 31; r++) for (let c = 0; c < 27; c++) id(`pair ${r} ${c}`);

function wordRun(chars, kinds, from, before, add) {
    let row = before,
        small = false,
        capitals = 0,
        to = from;
    for (; kinds[to] === "LATIN"; to++) {
        const plain = chars[to] < "\x80",
            capital = plain && chars[to] < "a";
        if (capital && small) break;
        small ||= plain && !capital;
        capitals += capital;
        const col = plain ? chars[to].toLowerCase().charCodeAt(0) - 97 : 26;
        add(`pair ${row} ${col}`, 1);
        row = col;
    }
    if (capitals === 1) add("capital", 1);
    if (capitals > 1) add("capitals", capitals - 1);
    if (to - from > 9) add("beyond 9", to - from - 9);
    return to;
}

function markRun(chars, kinds, from, to, before, add) {
    add("mark", 1);
    if (before === AFTER.space) add("mark after space", 1);
    for (let i = from + 1; i < to; i++)
        add(
            chars[i] === chars[i - 1]
                ? "mark again"
                : `mark ${Math.min(i - from, 3)}`,
            1,
        );
    while (kinds[to] === "BREAK") to++;
    return to;
}

function take(piece, han) {
    const chars = [...piece],
        kinds = chars.map(kindOf),
        runs = [];
    let before = AFTER.none;
    for (let i = 0, to; i < chars.length; i = to) {
        const kind = kinds[i],
            f = new Map();
        const add = (name, n) => f.set(id(name), (f.get(id(name)) ?? 0) + n);
        const same = (set) => {
            to = i + 1;
            while (to < chars.length && set.includes(kinds[to])) to++;
        };
        let least = 0,
            base = 0;
        same([kind]);
        if (kind === "SPACE" || kind === "BREAK") {
            same(["SPACE", "BREAK"]);
            if (to === i + 1 && chars[i] === " " && to < chars.length) {
                before = AFTER.space;
                continue;
            }
            base = 1;
        } else if (kind === "DIGIT") {
            base = 1;
        } else if (kind === "MARK") {
            if (
                to === i + 1 &&
                before !== AFTER.space &&
                letters.includes(kinds[to])
            ) {
                before = chars[i] === "'" ? AFTER.apostrophe : AFTER.mark;
                continue;
            }
            least = 1;
            to = markRun(chars, kinds, i, to, before, add);
        } else if (kind === "LATIN") {
            least = before === AFTER.apostrophe ? 0 : 1;
            to = wordRun(chars, kinds, i, before, add);
        } else {
            const row = kind === "HAN" ? han : kind;
            for (let n = 0; n < to - i; n++)
                add(
                    row +
                        (n === 0 || even.includes(row)
                            ? 0
                            : n < 4 || flat.includes(row)
                              ? 1
                              : n < 8
                                ? 2
                                : 3),
                    1,
                );
        }
        runs.push({ f: [...f], least, base });
        before = AFTER.none;
    }
    return runs;
}

// ---- the texts ----

function documents(kind) {
    const text = fs.readFileSync(`${dir}/${kind}.txt`, "utf8");
    if (text.includes("\0")) return text.split("\0");
    const lines = text.split("\n").filter((line) => line !== ""),
        all = [];
    for (let i = 0; i < lines.length; i += 8)
        all.push(lines.slice(i, i + 8).join(i % 16 ? " " : "\n"));
    return all;
}

const counts = new Map();
const count = (p) =>
    counts.get(p) ?? (counts.set(p, encode(p).length), counts.get(p));
const data = new Map(),
    held = [];
for (const file of fs.readdirSync(dir).filter((f) => f.endsWith(".txt"))) {
    const kind = file.slice(0, -4),
        seen = new Map();
    let tokens = 0;
    documents(kind).forEach((text, i) => {
        const han = /[\u3041-\u30ff]/.test(text)
            ? "HANJA"
            : /[這們來國會說對於]/.test(text)
              ? "OLDHAN"
              : "HAN";
        const pieces = (text.match(cuts) ?? []).map((p) => `${han} ${p}`);
        if (i % 5 === 0) return held.push([kind, pieces]);
        for (const key of pieces) {
            tokens += count(key.slice(key.indexOf(" ") + 1));
            seen.set(key, (seen.get(key) ?? 0) + 1);
        }
    });
    for (const [key, n] of seen) {
        const at = key.indexOf(" "),
            piece = key.slice(at + 1);
        if (!data.has(key))
            data.set(key, {
                runs: take(piece, key.slice(0, at)),
                tokens: count(piece),
                weight: 0,
            });
        data.get(key).weight += (n / tokens) * 1e5 * (weights[kind] ?? 1);
    }
}

// ---- least squares, again and again: which runs are at their least changes ----

const N = ids.size;
const prior = Float64Array.from([...ids.keys()], (n) =>
    /^pair (2[7-9]|30)/.test(n)
        ? 0.8
        : n.startsWith("pair")
          ? 0.3
          : n.startsWith("capital")
            ? 0
            : 0.4,
);
let price = Float64Array.from(prior);
const raw = (run) =>
    run.f.reduce((sum, [i, n]) => sum + price[i] * n, run.base);
const costOf = (runs) =>
    runs.reduce((sum, run) => sum + Math.max(run.least, raw(run)), 0);

function solve(G, b) {
    // Cholesky, in place
    for (let j = 0; j < N; j++)
        for (let i = j; i < N; i++) {
            let sum = G[i * N + j];
            for (let k = 0; k < j; k++) sum -= G[i * N + k] * G[j * N + k];
            G[i * N + j] =
                i === j ? Math.sqrt(Math.max(sum, 1e-9)) : sum / G[j * N + j];
        }
    for (let i = 0; i < N; i++) {
        for (let k = 0; k < i; k++) b[i] -= G[i * N + k] * b[k];
        b[i] /= G[i * N + i];
    }
    for (let i = N - 1; i >= 0; i--) {
        for (let k = i + 1; k < N; k++) b[i] -= G[k * N + i] * b[k];
        b[i] /= G[i * N + i];
    }
    return b;
}

for (let round = 0; round < 12; round++) {
    const G = new Float64Array(N * N),
        b = Float64Array.from(prior, (v) => 3 * v);
    for (let i = 0; i < N; i++) G[i * N + i] = 3;
    for (const { runs, tokens, weight } of data.values()) {
        const f = new Map();
        let left = tokens;
        for (const run of runs)
            if (raw(run) < run.least) left -= run.least;
            else {
                left -= run.base;
                for (const [i, n] of run.f) f.set(i, (f.get(i) ?? 0) + n);
            }
        for (const [i, n] of f) {
            b[i] += weight * n * left;
            for (const [k, m] of f) G[i * N + k] += weight * n * m;
        }
    }
    price = solve(G, b);
}

// ---- out ----

const known = new Set(ids.keys());
const get = (name) => (known.has(name) ? price[id(name)] : undefined);
for (let r = 0; r < 31; r++) {
    let line = "";
    for (let c = 0; c < 27; c++)
        // '?' could begin a trigraph
        line += String.fromCharCode(
            49 +
                Math.max(
                    -14,
                    Math.min(42, Math.round(32 * get(`pair ${r} ${c}`))),
                ),
        ).replace("?", "@");
    console.log(`    "${line}",`);
}
for (const row of rows) {
    let last = 1;
    const line = [0, 1, 2, 3].map((i) =>
        Math.round(64 * (last = get(row + i) ?? last)),
    );
    console.log(`    {${line.join(", ")}}, /* ${row} */`);
}
for (const name of known)
    if (!/^pair|[0-3]$/.test(name) || /^mark/.test(name))
        console.log(name, Math.round(64 * get(name)));
const kinds = new Map();
for (const [kind, pieces] of held) {
    const sum = kinds.get(kind) ?? kinds.set(kind, [0, 0]).get(kind);
    for (const key of pieces) {
        const at = key.indexOf(" "),
            piece = key.slice(at + 1);
        sum[0] += count(piece);
        sum[1] += costOf(
            take(piece, key.slice(0, at)).map((run) => ({
                ...run,
                f: run.f.filter(([i]) => i < N),
            })),
        );
    }
}
for (const [kind, [tokens, cost]] of kinds)
    console.log(kind, tokens, `${(100 * (cost / tokens - 1)).toFixed(1)}%`);
