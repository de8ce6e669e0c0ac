/* measure CORE PROGRAM ARGUMENT...: runs a program on one core and prints the
 * figures of the whole process, from fork to its end, after the program's own
 * line. CORE -1: any core. "measure port" prints a free TCP port. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t to_us(struct timeval t)
{
    return (int64_t)t.tv_sec * 1000000 + t.tv_usec;
}

static int print_port(void)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        perror("measure port");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    return 0;
}

static void run(int core, char **argv)
{
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)core, &set);
        sched_setaffinity(0, sizeof set, &set); /* fewer cores: runs anyway */
    }
    execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int status = 0;
    int64_t start, wall;
    pid_t child;
    if (argc == 2 && strcmp(argv[1], "port") == 0) {
        return print_port();
    }
    if (argc < 3) {
        fprintf(stderr, "usage: measure CORE PROGRAM ARGUMENT...\n");
        return 2;
    }
    start = now_us();
    child = fork();
    if (child == 0) {
        run(atoi(argv[1]), argv + 2);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child) {
        perror("measure");
        return 1;
    }
    wall = now_us() - start;
    printf("cpu_us=%" PRId64 " user_us=%" PRId64 " wall_us=%" PRId64
           " switches=%" PRId64 " maxrss_kib=%" PRId64 "\n",
           to_us(usage.ru_utime) + to_us(usage.ru_stime), to_us(usage.ru_utime),
           wall, (int64_t)usage.ru_nvcsw + (int64_t)usage.ru_nivcsw,
           (int64_t)usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
