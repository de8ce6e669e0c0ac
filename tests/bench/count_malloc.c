/* LD_PRELOAD=count_malloc.so: counts the allocations of a whole process, its
 * libraries included, and prints "allocs=N bytes=N" at its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t calls;
static int64_t bytes;

/* The C library's own function of that name. ISO C has no cast from an object
 * pointer to a function pointer; POSIX promises that the bytes serve. */
#define FIND_ONCE(fn, name)                       \
    do {                                          \
        if (fn == NULL) {                         \
            void *found = dlsym(RTLD_NEXT, name); \
            memcpy(&fn, &found, sizeof fn);       \
        }                                         \
    } while (0)

static void count(size_t size)
{
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&bytes, (int64_t)size, __ATOMIC_RELAXED);
}

void *malloc(size_t size)
{
    static void *(*fn)(size_t);
    FIND_ONCE(fn, "malloc");
    count(size);
    return fn(size);
}

void *calloc(size_t n, size_t size)
{
    static void *(*fn)(size_t, size_t);
    FIND_ONCE(fn, "calloc");
    count(n * size);
    return fn(n, size);
}

void *realloc(void *ptr, size_t size)
{
    static void *(*fn)(void *, size_t);
    FIND_ONCE(fn, "realloc");
    count(size);
    return fn(ptr, size);
}

__attribute__((destructor)) static void print_counts(void)
{
    printf("allocs=%" PRId64 " bytes=%" PRId64 "\n", calls, bytes);
    fflush(stdout);
}
