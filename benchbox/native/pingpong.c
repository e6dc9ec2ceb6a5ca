/* pingpong: how long a message takes to a server and back, asked at a fixed rate. Static, and the same everywhere.
 *
 *   pingpong server PORT
 *   pingpong client ADDRESS PORT RATE SECONDS BYTES
 *
 * The server sends each UDP message back to whoever sent it. It says that it is ready by the byte to BENCHBOX_READY (a
 * path, or the number of an open descriptor; nothing where that is not set) and goes on until it is ended.
 *
 * The client is an open loop: message n is due at begin + n / RATE, whatever became of those before it, and its time
 * counts from then on, not from when it was sent. So a stall shows in every message that it held up; a closed loop
 * would send fewer and hide it. It sleeps between messages (a spinning client would take its whole CPU and could not be
 * told from one that is overloaded), with a timer slack of 1 ns. A tenth of the messages, at least 10, go before as a
 * warm-up and do not count. It waits up to a second for the last answers and prints lines of NAME=VALUE:
 *
 *   asked, sent, received    messages that were due, sent (later than due by less than a whole second), answered
 *   late_p50_ns, late_max_ns how late the client sent them: its own share of the times
 *   min_ns, p50_ns, p75_ns, p90_ns, p95_ns, p99_ns, p99.9_ns, max_ns
 *                            nearest rank; those that need more answers than there are (ten beyond it) are left out
 *
 * Exit status: 0; 1 the network refused; 2 wrong arguments; 3 not one answer.
 *
 *   musl-gcc -std=gnu11 -O2 -static -Wall -Wextra -Werror -o pingpong pingpong.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES 1400 /* of a message: it must fit into one frame */
#define MIN_BYTES 16
#define LAST_WAIT_NS INT64_C(1000000000)
#define NS_PER_S INT64_C(1000000000)

struct message { uint64_t number, magic; };
#define MAGIC UINT64_C(0x62656e6368626f78)

struct plan { long rate, seconds, bytes; };

struct seen {
    int64_t *times_ns, *late_ns; /* of each message; a time of 0: no answer */
    long warm_up, total, sent, received;
    int64_t begin_ns;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static _Noreturn void refuse(const char *what, const char *which)
{
    fprintf(stderr, "pingpong: %s %s\n", what, which);
    exit(2);
}

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long number(const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *end || end == text || value < least || value > most) refuse("no number that fits here:", text);
    return value;
}

static int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) give_up("cannot open a socket");
    return fd;
}

static void say_ready(void)
{
    const char *value = getenv("BENCHBOX_READY");
    if (!value) return;
    int fd = *value == '/' ? open(value, O_WRONLY | O_CLOEXEC) : (int)number(value, 0, 1 << 20);
    if (fd < 0 || write(fd, "!", 1) != 1) give_up("cannot say that it is ready");
    close(fd);
}

static _Noreturn void serve(long port)
{
    char message[MAX_BYTES];
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}, from;
    int fd = open_socket();
    if (bind(fd, (struct sockaddr *)&own, sizeof own)) give_up("cannot take the port");
    say_ready();
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, message, sizeof message, 0, (struct sockaddr *)&from, &length);
        if (got > 0 && sendto(fd, message, (size_t)got, 0, (struct sockaddr *)&from, length) < 0 && errno == EBADF) exit(1);
    }
}

static int64_t due_ns(const struct seen *seen, const struct plan *plan, long number)
{
    return seen->begin_ns + (int64_t)((__int128)number * NS_PER_S / plan->rate);
}

static void take(int fd, struct seen *seen, const struct plan *plan)
{
    char buffer[MAX_BYTES];
    struct message message;
    ssize_t got;
    while ((got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
        int64_t at_ns = now_ns();
        if (got != plan->bytes) continue;
        memcpy(&message, buffer, sizeof message);
        if (message.magic != MAGIC || message.number >= (uint64_t)seen->total) continue;
        long n = (long)message.number;
        if (seen->times_ns[n]) continue; /* twice */
        seen->times_ns[n] = at_ns - due_ns(seen, plan, n);
        seen->received += n >= seen->warm_up;
    }
}

static void send_one(int fd, struct seen *seen, const struct plan *plan, long n)
{
    char buffer[MAX_BYTES] = {0};
    struct message message = {(uint64_t)n, MAGIC};
    memcpy(buffer, &message, sizeof message);
    seen->late_ns[n] = now_ns() - due_ns(seen, plan, n);
    if (send(fd, buffer, (size_t)plan->bytes, 0) != plan->bytes) return; /* ECONNREFUSED: of one before; it counts as lost */
    seen->sent += n >= seen->warm_up && seen->late_ns[n] < NS_PER_S;
}

/* Wait for answers until the time. */
static void wait_until(int fd, struct seen *seen, const struct plan *plan, int64_t until_ns)
{
    for (int64_t left_ns; (left_ns = until_ns - now_ns()) > 0;) {
        struct pollfd waited = {.fd = fd, .events = POLLIN};
        struct timespec left = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
        if (ppoll(&waited, 1, &left, NULL) > 0) take(fd, seen, plan);
    }
}

static int by_value(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static int64_t ranked(const int64_t *sorted, long count, double share)
{
    long rank = (long)(share * (double)count + 0.999999);
    return sorted[rank < 1 ? 0 : rank > count ? count - 1 : rank - 1];
}

static void print_times(const int64_t *sorted, long count)
{
    static const struct { const char *name; double share; } wanted[] = {
        {"p50", 0.5}, {"p75", 0.75}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999},
    };
    printf("min_ns=%lld\n", (long long)sorted[0]);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if ((double)count * (1 - wanted[i].share) >= 10 || wanted[i].share == 0.5)
            printf("%s_ns=%lld\n", wanted[i].name, (long long)ranked(sorted, count, wanted[i].share));
    printf("max_ns=%lld\n", (long long)sorted[count - 1]);
}

static int report(struct seen *seen)
{
    long asked = seen->total - seen->warm_up, count = 0;
    int64_t *answered = seen->times_ns + seen->warm_up, *late = seen->late_ns + seen->warm_up;
    printf("asked=%ld\nsent=%ld\nreceived=%ld\n", asked, seen->sent, seen->received);
    for (long n = 0; n < asked; n++)
        if (answered[n]) answered[count++] = answered[n];
    qsort(late, (size_t)asked, sizeof *late, by_value);
    printf("late_p50_ns=%lld\nlate_max_ns=%lld\n", (long long)late[asked / 2], (long long)late[asked - 1]);
    if (!count) return 3;
    qsort(answered, (size_t)count, sizeof *answered, by_value);
    print_times(answered, count);
    return 0;
}

static int ask(const char *address, long port, const struct plan *plan)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    long counted = plan->rate * plan->seconds;
    struct seen seen = {.warm_up = counted / 10 < 10 ? 10 : counted / 10};
    if (!inet_aton(address, &to.sin_addr)) refuse("no address:", address);
    seen.total = seen.warm_up + counted;
    seen.times_ns = calloc((size_t)seen.total, sizeof *seen.times_ns);
    seen.late_ns = calloc((size_t)seen.total, sizeof *seen.late_ns);
    if (!seen.times_ns || !seen.late_ns) give_up("no memory");
    int fd = open_socket();
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) give_up("cannot reach the server");
    prctl(PR_SET_TIMERSLACK, 1);
    seen.begin_ns = now_ns() + 1000000;
    for (long n = 0; n < seen.total; n++) {
        wait_until(fd, &seen, plan, due_ns(&seen, plan, n));
        send_one(fd, &seen, plan, n);
    }
    int64_t end_ns = now_ns() + LAST_WAIT_NS;
    while (seen.received < counted && now_ns() < end_ns) wait_until(fd, &seen, plan, now_ns() + 10000000);
    return report(&seen);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOFBF, 4096);
    if (argc == 3 && !strcmp(argv[1], "server")) serve(number(argv[2], 1, 65535));
    if (argc == 7 && !strcmp(argv[1], "client")) {
        struct plan plan = {number(argv[4], 1, 100000), number(argv[5], 1, 600), number(argv[6], MIN_BYTES, MAX_BYTES)};
        return ask(argv[2], number(argv[3], 1, 65535), &plan);
    }
    refuse("arguments are needed, see the top of", "pingpong.c");
}
