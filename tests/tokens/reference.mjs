// Counts the tokens of each text in tests/data/tokens.tsv with the o200k
// vocabulary and writes them into its second column. A line is
//     kind TAB tokens TAB text        with \\ \n \r \t in the text escaped
// With --check nothing is written: exit status 1 tells that a count differs.
import fs from "node:fs";
import { encode } from "gpt-tokenizer/encoding/o200k_base";

const path = new URL("../data/tokens.tsv", import.meta.url);
const escapes = { "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t" };
let wrong = 0;

function count(line) {
    const [kind, told, text] = line.split("\t");
    const plain = text.replace(/\\[\\nrt]/g, (e) => escapes[e]);
    const tokens = String(encode(plain, { allowedSpecial: new Set() }).length);
    wrong += tokens !== told;
    return [kind, tokens, text].join("\t");
}

const lines = fs.readFileSync(path, "utf8").trimEnd().split("\n").map(count);
if (process.argv[2] !== "--check")
    fs.writeFileSync(path, lines.join("\n") + "\n");
console.log(`${lines.length} texts, ${wrong} counts differ`);
process.exit(process.argv[2] === "--check" && wrong > 0 ? 1 : 0);
