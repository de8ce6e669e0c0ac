/* Gives a function the files that are named. */
#ifndef FUZZ_REPLAY_H
#define FUZZ_REPLAY_H

#include <dirent.h>

static bool fuzz_replay_file(const char *path,
                             int (*one)(const uint8_t *data, size_t size))
{
    size_t len = 0;
    char *data = mki_file_read(path, &len);
    char *exact;
    if (data == NULL) {
        return false;
    }
    exact = fuzz_copy(data, len);
    free(data);
    one((const uint8_t *)exact, len);
    free(exact);
    return true;
}

/* A file, or the files of a folder; their number. */
static size_t fuzz_replay(const char *path,
                          int (*one)(const uint8_t *data, size_t size))
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    size_t n = 0;
    if (dir == NULL) {
        return fuzz_replay_file(path, one) ? 1 : 0;
    }
    while ((entry = readdir(dir)) != NULL) {
        char name[1024];
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && fuzz_replay_file(name, one)) {
            n++;
        }
    }
    closedir(dir);
    return n;
}

#endif /* FUZZ_REPLAY_H */
