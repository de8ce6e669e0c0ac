/* A file system that loses power. Include it after all system headers and
 * before gptner.h: what that does to files in one folder really happens, and is
 * written down beside, in memory that forked children share. power_cut() then
 * makes of the folder what a disk may hold if the power failed after the last
 * of these operations: what was not synced is there, gone, or torn at borders
 * of 512 bytes; names that were not synced with their folder are old or new,
 * up to some point or at random. It can also make single calls fail, and write
 * less than it was asked to. */
#ifndef POWER_LOSS_H
#define POWER_LOSS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    POWER_OPS = 8192,
    POWER_BYTES = 16 << 20,
    POWER_FILES = 2048,
    POWER_FDS = 1024,
    POWER_EXIT = 99 /* the exit status of a process whose power failed */
};

typedef enum power_kind {
    POWER_CREATE = 1,
    POWER_WRITE,
    POWER_SYNC,
    POWER_RENAME,
    POWER_UNLINK,
    POWER_FOLDER
} power_kind;

typedef struct power_op {
    power_kind kind;
    int file;  /* its number, from 1 */
    bool lost; /* a write whose sync failed: it never reaches the disk */
    size_t at, len, bytes; /* of a write: where, and where its bytes are */
    char name[256], to[256];
} power_op;

/* Shared with children. */
typedef struct power_state {
    bool on;
    char folder[128];
    int n_ops, n_files;
    size_t n_bytes;
    /* for the next process; counted from its start, from 1; 0: never */
    int cut_at;       /* the power fails before this operation */
    int fail_at;      /* this one fails */
    int fail_kind;    /* only operations of this kind count for fail_at; 0: all
                       */
    bool fail_on;     /* and all after it */
    bool short_write; /* half of what was asked */
    int fail_errno;
    int done;   /* operations of the process */
    int failed; /* of them, made to fail */
    int lock;
    struct {
        char name[256];
        int file;
    } live[POWER_FILES];
    int n_live;
    power_op ops[POWER_OPS];
    char bytes[POWER_BYTES];
} power_state;

static power_state *powered;
static int power_fds[POWER_FDS]; /* file of a descriptor, -1: the folder */
static int power_matching;       /* operations of fail_kind */

static uint64_t power_random(uint64_t *seed)
{
    uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void power_lock(void)
{
    while (__atomic_exchange_n(&powered->lock, 1, __ATOMIC_ACQUIRE) != 0) {
    }
}

static void power_unlock(void)
{
    __atomic_store_n(&powered->lock, 0, __ATOMIC_RELEASE);
}

/* The name within the folder; NULL: not there, or nothing is recorded. */
static const char *power_name(const char *path)
{
    size_t len;

    if (powered == NULL || !powered->on) {
        return NULL;
    }
    len = strlen(powered->folder);
    return strncmp(path, powered->folder, len) == 0 && path[len] == '/'
               ? path + len + 1
               : NULL;
}

/* The file that has the name now, or 0. */
static int power_live(const char *name)
{
    int i;

    for (i = 0; i < powered->n_live; i++) {
        if (strcmp(powered->live[i].name, name) == 0) {
            return powered->live[i].file;
        }
    }
    return 0;
}

static void power_set_live(const char *name, int file)
{
    int i;

    for (i = 0; i < powered->n_live; i++) {
        if (strcmp(powered->live[i].name, name) == 0) {
            break;
        }
    }
    if (file == 0) {
        if (i < powered->n_live) {
            powered->live[i] = powered->live[--powered->n_live];
        }
        return;
    }
    if (i == POWER_FILES) {
        abort();
    }
    snprintf(powered->live[i].name, sizeof powered->live[i].name, "%s", name);
    powered->live[i].file = file;
    powered->n_live += i == powered->n_live;
}

static power_op *power_add(power_kind kind, int file, const char *name,
                           const char *to)
{
    power_op *op = &powered->ops[powered->n_ops++];

    if (powered->n_ops == POWER_OPS) {
        abort();
    }
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->file = file;
    snprintf(op->name, sizeof op->name, "%s", name != NULL ? name : "");
    snprintf(op->to, sizeof op->to, "%s", to != NULL ? to : "");
    return op;
}

/* An operation is about to be: does it fail? Does not return if this is where
 * the power does. Holds the lock afterwards. */
static bool power_begin(power_kind kind)
{
    bool fails = false;

    power_lock();
    if (++powered->done == powered->cut_at) {
        power_unlock();
        _exit(POWER_EXIT);
    }
    if (powered->fail_at > 0 &&
        (powered->fail_kind == 0 || powered->fail_kind == (int)kind)) {
        power_matching++;
        fails = power_matching == powered->fail_at ||
                (powered->fail_on && power_matching > powered->fail_at);
    }
    if (fails) {
        powered->failed++;
        errno = powered->fail_errno;
    }
    return !fails;
}

static int power_fd_file(int fd)
{
    return powered != NULL && powered->on && fd >= 0 && fd < POWER_FDS
               ? power_fds[fd]
               : 0;
}

static int power_open(const char *path, int flags, ...)
{
    const char *name = power_name(path);
    bool folder =
        powered != NULL && powered->on && strcmp(path, powered->folder) == 0;
    bool makes;
    mode_t mode = 0;
    int fd;
    va_list list;

    if ((flags & O_CREAT) != 0) {
        va_start(list, flags);
        mode = (mode_t)va_arg(list, int);
        va_end(list);
    }
    makes = name != NULL && (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
    if (makes && !power_begin(POWER_CREATE)) {
        power_unlock();
        return -1;
    }
    fd = open(path, flags, mode);
    if (fd >= 0 && fd < POWER_FDS) {
        power_fds[fd] = folder ? -1 : 0;
        if (makes) {
            power_set_live(name, ++powered->n_files);
            power_add(POWER_CREATE, powered->n_files, name, NULL);
        }
        if (name != NULL) {
            power_fds[fd] = power_live(name);
        }
    }
    if (makes) {
        power_unlock();
    }
    return fd;
}

static int power_close(int fd)
{
    if (fd >= 0 && fd < POWER_FDS) {
        power_fds[fd] = 0;
    }
    return close(fd);
}

static ssize_t power_write(int fd, const void *data, size_t len)
{
    int file = power_fd_file(fd);
    ssize_t n;

    if (file <= 0) {
        return write(fd, data, len);
    }
    if (!power_begin(POWER_WRITE)) {
        power_unlock();
        return -1;
    }
    n = write(fd, data, powered->short_write && len > 1 ? len / 2 : len);
    if (n > 0) {
        power_op *op = power_add(POWER_WRITE, file, NULL, NULL);

        op->len = (size_t)n;
        op->at = (size_t)lseek(fd, 0, SEEK_CUR) - op->len;
        op->bytes = powered->n_bytes;
        if (powered->n_bytes + op->len > POWER_BYTES) {
            abort();
        }
        memcpy(powered->bytes + op->bytes, data, op->len);
        powered->n_bytes += op->len;
    }
    power_unlock();
    return n;
}

/* After a sync that failed the system believes the pages to be clean. */
static void power_lose(int file)
{
    int i = powered->n_ops;

    while (i-- > 0 && (powered->ops[i].kind != POWER_SYNC ||
                       powered->ops[i].file != file)) {
        if (powered->ops[i].kind == POWER_WRITE &&
            powered->ops[i].file == file) {
            powered->ops[i].lost = true;
        }
    }
}

static int power_fsync(int fd)
{
    int file = power_fd_file(fd);
    bool ok;

    if (file == 0) {
        return fsync(fd);
    }
    ok = power_begin(file > 0 ? POWER_SYNC : POWER_FOLDER);
    if (ok) {
        power_add(file > 0 ? POWER_SYNC : POWER_FOLDER, file, NULL, NULL);
    } else if (file > 0) {
        power_lose(file);
    }
    power_unlock();
    return ok ? 0 : -1;
}

static int power_rename(const char *from, const char *to)
{
    const char *a = power_name(from), *b = power_name(to);
    int code;

    if (a == NULL || b == NULL) {
        return rename(from, to);
    }
    if (!power_begin(POWER_RENAME)) {
        power_unlock();
        return -1;
    }
    code = rename(from, to);
    if (code == 0) {
        int file = power_live(a);

        power_add(POWER_RENAME, file, a, b);
        power_set_live(a, 0);
        power_set_live(b, file);
    }
    power_unlock();
    return code;
}

static int power_unlink(const char *path)
{
    const char *name = power_name(path);
    int code;

    if (name == NULL) {
        return unlink(path);
    }
    if (!power_begin(POWER_UNLINK)) {
        power_unlock();
        return -1;
    }
    code = unlink(path);
    if (code == 0) {
        power_add(POWER_UNLINK, power_live(name), name, NULL);
        power_set_live(name, 0);
    }
    power_unlock();
    return code;
}

static int power_unlinkat(int fd, const char *name, int flags)
{
    char path[400];

    if (powered == NULL || !powered->on) {
        return unlinkat(fd, name, flags);
    }
    snprintf(path, sizeof path, "%s/%s", powered->folder, name);
    return power_unlink(path);
}

/* ---- what is left on the disk ---- */

/* How the disk had dealt with what was not synced. */
typedef enum power_fate {
    POWER_NOTHING, /* nothing of it is there */
    POWER_ALL,
    POWER_UP_TO, /* names up to some operation, blocks at random */
    POWER_RANDOM /* names and blocks at random */
} power_fate;

typedef struct power_disk {
    char *data;
    size_t len;
} power_disk;

static void power_put(power_disk *d, const power_op *op, size_t from, size_t to)
{
    if (to > d->len) {
        d->data = (char *)realloc(d->data, to);
        memset(d->data + d->len, 0, to - d->len);
        d->len = to;
    }
    memcpy(d->data + from, powered->bytes + op->bytes + (from - op->at),
           to - from);
}

static power_disk power_content(int file, power_fate fate, uint64_t *seed)
{
    power_disk d = {NULL, 0};
    int i, synced = -1;

    for (i = 0; i < powered->n_ops; i++) {
        if (powered->ops[i].kind == POWER_SYNC &&
            powered->ops[i].file == file) {
            synced = i;
        }
    }
    for (i = 0; i < powered->n_ops; i++) {
        const power_op *op = &powered->ops[i];
        bool safe = i < synced && !op->lost;
        size_t at = op->at, end = op->at + op->len;

        if (op->kind != POWER_WRITE || op->file != file) {
            continue;
        }
        while (at < end) {
            size_t next = (at / 512 + 1) * 512;

            next = next < end ? next : end;
            if (safe || fate == POWER_ALL ||
                (fate != POWER_NOTHING && power_random(seed) % 2 == 0)) {
                power_put(&d, op, at, next);
            }
            at = next;
        }
    }
    return d;
}

/* Apply an operation on names. */
static void power_replay(const power_op *op)
{
    if (op->kind == POWER_CREATE) {
        power_set_live(op->name, op->file);
    } else if (op->kind == POWER_RENAME) {
        power_set_live(op->name, 0);
        power_set_live(op->to, op->file);
    } else if (op->kind == POWER_UNLINK) {
        power_set_live(op->name, 0);
    }
}

static void power_names(power_fate fate, uint64_t *seed)
{
    int i, synced = -1, until = powered->n_ops;

    for (i = 0; i < powered->n_ops; i++) {
        if (powered->ops[i].kind == POWER_FOLDER) {
            synced = i;
        }
    }
    if (fate == POWER_UP_TO) {
        until = synced + 1 +
                (int)(power_random(seed) % (uint64_t)(powered->n_ops - synced));
    }
    powered->n_live = 0;
    for (i = 0; i < powered->n_ops; i++) {
        if (i < synced || (i < until && fate != POWER_NOTHING &&
                           (fate != POWER_RANDOM || power_random(seed) % 2))) {
            power_replay(&powered->ops[i]);
        }
    }
}

static void power_wipe(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

/* What is in the folder is taken to be on the disk. */
static void power_take_in(const power_disk *disks)
{
    int i, n = powered->n_live;

    powered->n_ops = powered->n_files = 0;
    powered->n_bytes = 0;
    for (i = 0; i < n; i++) {
        const power_disk *d = &disks[i];
        char path[400];
        int fd;
        power_op *op;

        snprintf(path, sizeof path, "%s/%s", powered->folder,
                 powered->live[i].name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0 || write(fd, d->data, d->len) != (ssize_t)d->len) {
            abort();
        }
        close(fd);
        powered->live[i].file = ++powered->n_files;
        power_add(POWER_CREATE, i + 1, powered->live[i].name, NULL);
        op = power_add(POWER_WRITE, i + 1, NULL, NULL);
        op->len = d->len;
        op->bytes = powered->n_bytes;
        if (d->len > 0) {
            memcpy(powered->bytes + op->bytes, d->data, d->len);
        }
        powered->n_bytes += d->len;
        power_add(POWER_SYNC, i + 1, NULL, NULL);
    }
    power_add(POWER_FOLDER, -1, NULL, NULL);
}

/* The power has failed; the folder becomes what the disk holds. */
static void power_cut(power_fate fate, uint64_t seed)
{
    power_disk *disks;
    int i, n;

    power_names(fate, &seed);
    n = powered->n_live;
    disks = (power_disk *)calloc((size_t)n + 1, sizeof *disks);
    for (i = 0; i < n; i++) {
        disks[i] = power_content(powered->live[i].file, fate, &seed);
    }
    power_wipe(powered->folder);
    power_take_in(disks);
    for (i = 0; i < n; i++) {
        free(disks[i].data);
    }
    free(disks);
}

/* An empty folder, from here on watched. */
static void power_start(const char *folder)
{
    powered->on = true;
    if (snprintf(powered->folder, sizeof powered->folder, "%s", folder) >=
        (int)sizeof powered->folder) {
        abort();
    }
    powered->n_ops = powered->n_files = powered->n_live = 0;
    powered->n_bytes = 0;
    power_wipe(folder);
}

/* What is to happen to the next process: nothing. */
static void power_calm(void)
{
    powered->cut_at = powered->fail_at = powered->fail_kind = 0;
    powered->fail_on = powered->short_write = false;
    powered->fail_errno = EIO;
    powered->done = powered->failed = powered->lock = 0;
    power_matching = 0;
}

static void power_init(void)
{
    powered = (power_state *)mmap(NULL, sizeof *powered, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (powered == MAP_FAILED) {
        abort();
    }
}

#define open     power_open
#define close    power_close
#define write    power_write
#define fsync    power_fsync
#define rename   power_rename
#define unlink   power_unlink
#define unlinkat power_unlinkat

#endif
