/* No include guard: FUZZ_ONE names the target. Built with -DFUZZ_ENGINE and
 * clang -fsanitize=fuzzer it is a fuzzer; else a program that gives the target
 * each file named, and each file of a folder named. */
#ifndef FUZZ_TOGETHER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = fuzz_copy(data, size);
    FUZZ_ONE((const uint8_t *)copy, size);
    free(copy);
    return 0;
}

#ifndef FUZZ_ENGINE
#include "fuzz_replay.h"

int main(int argc, char **argv)
{
    size_t n = 0;
    int i;
    for (i = 1; i < argc; i++) {
        n += fuzz_replay(argv[i], LLVMFuzzerTestOneInput);
    }
    fuzz_end();
    printf("%d inputs replayed\n", (int)n);
    return n > 0 ? 0 : 2;
}
#endif
#endif
#undef FUZZ_ONE
