// The peer of batch_read.c with simdjson: On-Demand, a document a line, over
// the whole file in memory (padded, as the library wants it).
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

using namespace simdjson;

static std::vector<std::string> ids;
static std::unordered_map<std::string_view, size_t> by_id;
static std::vector<char *> texts;
static size_t bad;

static void read_request(ondemand::document &doc)
{
    ids.emplace_back(std::string_view(doc["custom_id"]));
    by_id.emplace(ids.back(), ids.size() - 1);
}

// In the order of the members, which On-Demand likes best.
static void read_row(ondemand::document &doc)
{
    auto found = by_id.find(std::string_view(doc["custom_id"]));
    ondemand::object response = doc["response"];
    int64_t status = response["status_code"];
    if (found == by_id.end())
        return;
    if (status != 200) {
        bad++;
        return;
    }
    for (ondemand::object choice : response["body"]["choices"].get_array()) {
        std::string_view text = choice["message"]["content"];
        char *copy = static_cast<char *>(malloc(text.size() + 1));
        memcpy(copy, text.data(), text.size());
        copy[text.size()] = '\0';
        if (std::string_view(choice["finish_reason"]) == "stop") {
            texts[found->second] = copy;
        } else {
            free(copy);
            bad++;
        }
        break;
    }
}

static void each_line(const std::string &path,
                      void (*fn)(ondemand::document &))
{
    padded_string file = padded_string::load(path);
    ondemand::parser parser;
    const char *at = file.data();
    const char *end = at + file.size();
    while (at < end) {
        const char *lf = static_cast<const char *>(memchr(at, '\n', end - at));
        size_t len = (lf != nullptr ? lf : end) - at;
        if (len > 0) {
            try {
                ondemand::document doc = parser.iterate(
                    padded_string_view(at, len, len + SIMDJSON_PADDING));
                fn(doc);
            } catch (simdjson_error &) {
                bad++;
            }
        }
        at += len + 1;
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: batch_read_simdjson DIRECTORY N\n");
        return 2;
    }
    std::string dir = argv[1];
    size_t n = static_cast<size_t>(atol(argv[2]));
    ids.reserve(n);
    by_id.reserve(n);
    texts.resize(n);
    each_line(dir + "/requests.jsonl", read_request);
    each_line(dir + "/output.jsonl", read_row);
    each_line(dir + "/errors.jsonl", read_row);
    unsigned long long sum = 0;
    size_t good = 0;
    for (char *text : texts) {
        if (text != nullptr) {
            sum = sum * 31 + static_cast<unsigned char>(text[0]);
            sum = sum * 31 + strlen(text);
            good++;
        }
    }
    printf("texts=%zu errors=%zu sum=%llx ", good, bad, sum);
    return 0;
}
