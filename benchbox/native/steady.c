/* steady: says that it is ready and stays, idle or under a small steady load, until it is ended. It is what density is
 * measured with: many of it live at once while the host is looked at.
 *
 *   steady [--every-ms N --work-us N] [--for-ms N]
 *
 * Without --work-us it sleeps. With it, it computes for so many microseconds of its own CPU time at the beginning of
 * each period; a period that is over before its work is done is not made up for. The byte goes to where BENCHBOX_READY
 * says: a path, or the number of an open descriptor. It ends by itself after --for-ms (ten minutes unless told).
 *
 * Exit status: 0 its time is over, 1 the byte could not be written, 2 wrong arguments or no BENCHBOX_READY.
 *
 *   musl-gcc -std=gnu11 -O2 -static -Wall -Wextra -Werror -o steady steady.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000
#define NS_PER_US 1000
#define LONGEST_MS 86400000UL

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sleep_until(int64_t at_ns)
{
    struct timespec at = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
}

static void work(int64_t for_ns)
{
    volatile uint64_t state = 1;
    int64_t end_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + for_ns;
    while (clock_ns(CLOCK_PROCESS_CPUTIME_ID) < end_ns)
        for (int i = 0; i < 1000; i++) state = state * 6364136223846793005ULL + 1442695040888963407ULL;
}

static int number(const char *text, unsigned long *value)
{
    char *end;
    if (*text < '0' || *text > '9') return -1;
    *value = strtoul(text, &end, 10);
    return *end || *value > LONGEST_MS ? -1 : 0;
}

static int say_ready(void)
{
    const char *where = getenv("BENCHBOX_READY");
    if (!where || !*where) return 2;
    int fd = *where == '/' ? open(where, O_WRONLY | O_CLOEXEC) : atoi(where);
    return write(fd, "!", 1) == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    unsigned long every_ms = 0, work_us = 0, for_ms = 600000;
    for (int i = 1; i < argc; i += 2) {
        unsigned long *into = !strcmp(argv[i], "--every-ms") ? &every_ms
                            : !strcmp(argv[i], "--work-us") ? &work_us
                            : !strcmp(argv[i], "--for-ms") ? &for_ms : NULL;
        if (!into || i + 1 == argc || number(argv[i + 1], into)) return 2;
    }
    if (work_us && !every_ms) return 2;
    int failed = say_ready();
    if (failed) return failed;
    int64_t next_ns = clock_ns(CLOCK_MONOTONIC), end_ns = next_ns + (int64_t)for_ms * NS_PER_MS;
    if (!work_us) sleep_until(end_ns);
    while (next_ns < end_ns && work_us) {
        work((int64_t)work_us * NS_PER_US);
        int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        do next_ns += (int64_t)every_ms * NS_PER_MS; while (next_ns < now_ns);
        sleep_until(next_ns < end_ns ? next_ns : end_ns);
    }
    return 0;
}
