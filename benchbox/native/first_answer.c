/* first_answer: starts a server, asks it until it answers, says so, and ends it. It runs inside of the environment,
 * beside the server, so that the first answer is found in the same way everywhere.
 *
 *   first_answer --ask TEXT --expect TEXT [--stay] [--pause-us N] [--deadline-ms N] ADDRESS -- SERVER [ARGUMENT...]
 *   first_answer --listens [--stay] [--pause-us N] [--deadline-ms N] PORT -- SERVER [ARGUMENT...]
 *
 * ADDRESS is the path of a Unix socket, or a number: a TCP port of 127.0.0.1. In it and in the server's arguments
 * "{pid}" stands for the number of this process, so that several can run side by side.
 *
 * The server is asked on a new connection each time. Where it does not listen yet, or answers something else than
 * TEXT, it is asked again after a pause (500 us unless told): the byte is late by at most that, and the server loses
 * that much of its CPU to the questions. A server that has taken the connection is waited for without a pause. The
 * byte goes to where BENCHBOX_READY says: a path, or the number of an open descriptor. The server inherits neither.
 * Then it gets SIGTERM, and SIGKILL where that does not help.
 *
 * With --listens it is not asked, which some servers take for a client: it is enough that the kernel says of the TCP
 * port that somebody listens there (/proc/net/tcp). With --stay the server goes on after the byte, and this program
 * ends as the server does.
 *
 * Exit status: 0 answered and ended as it should; 1 the server ended well before it answered; 2 wrong arguments or no
 * BENCHBOX_READY; 3 no right answer in time; 4 the byte could not be written; 5 the server had to be killed; 126, 127
 * it could not be executed. A server that ends in another way gives its own status, 128 and its signal where one ended
 * it. The reason is one line on standard error.
 *
 *   musl-gcc -std=gnu11 -O2 -static -Wall -Wextra -Werror -o first_answer first_answer.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STATUS_TOO_SOON 1
#define STATUS_USAGE 2
#define STATUS_NO_ANSWER 3
#define STATUS_NO_BYTE 4
#define STATUS_KILLED 5
#define STATUS_CANNOT_EXECUTE 126
#define STATUS_NOT_FOUND 127
#define MAX_ANSWER 4096
#define MAX_TEXT 4096
#define END_MS 5000 /* from SIGTERM to SIGKILL */

static const char ready_name[] = "BENCHBOX_READY";
static const char pid_mark[] = "{pid}";

struct plan {
    const char *ask, *expect;
    size_t ask_length, expect_length;
    int listens, stay;
    int64_t pause_ns, deadline_ns; /* the deadline from the start on */
    const char *address;
    char **server;
};

/* The last answer that was not the right one. */
struct wrong {
    char text[MAX_ANSWER];
    size_t length;
};

enum attempt { ANSWERED, NOT_YET, WRONG };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void say(const char *format, ...)
{
    va_list arguments;
    fputs("first_answer: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static _Noreturn void refuse(const char *what, const char *which)
{
    say("%s%s%s", what, *which ? " " : "", which);
    exit(STATUS_USAGE);
}

/* ---- arguments -------------------------------------------------------------------------------------------------- */

static int64_t number(const char *text, const char *name)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *end || end == text || value < 0 || value > 1000000000) refuse("not a number of", name);
    return value;
}

/* Return `text` with the number of this process for each mark. */
static char *expanded(const char *text)
{
    char *made = malloc(MAX_TEXT), id[24];
    size_t length = 0;
    snprintf(id, sizeof id, "%ld", (long)getpid());
    while (made && *text) {
        int marked = !strncmp(text, pid_mark, sizeof pid_mark - 1);
        const char *part = marked ? id : text;
        size_t part_length = marked ? strlen(id) : 1;
        if (length + part_length >= MAX_TEXT) refuse("an argument is too long", "");
        memcpy(made + length, part, part_length);
        length += part_length;
        text += marked ? sizeof pid_mark - 1 : 1;
    }
    if (!made) refuse("no memory", "");
    made[length] = 0;
    return made;
}

static const char *value_of(char **word, const char *name)
{
    if (!*word) refuse("no value for", name);
    return *word;
}

static struct plan parse(char **words)
{
    struct plan plan = {.pause_ns = 500000, .deadline_ns = INT64_C(60000000000)};
    for (; *words && strcmp(*words, "--"); words++) {
        const char *name = *words;
        if (!strcmp(name, "--ask")) plan.ask = value_of(++words, name);
        else if (!strcmp(name, "--expect")) plan.expect = value_of(++words, name);
        else if (!strcmp(name, "--pause-us")) plan.pause_ns = number(value_of(++words, name), name) * 1000;
        else if (!strcmp(name, "--deadline-ms")) plan.deadline_ns = number(value_of(++words, name), name) * 1000000;
        else if (!strcmp(name, "--listens")) plan.listens = 1;
        else if (!strcmp(name, "--stay")) plan.stay = 1;
        else if (*name == '-') refuse("no option", name);
        else if (plan.address) refuse("a second address:", name);
        else plan.address = expanded(name);
    }
    if (!*words || !words[1]) refuse("no server: it comes after", "--");
    if (plan.listens && (plan.ask || plan.expect)) refuse("goes without --ask and --expect:", "--listens");
    if (plan.listens) plan.ask = plan.expect = "-"; /* not used */
    if (!plan.ask || !plan.expect || !*plan.expect || !plan.address) refuse("needed: --ask, --expect and an address", "");
    if (plan.listens && *plan.address == '/') refuse("needs a port:", "--listens");
    plan.ask_length = strlen(plan.ask);
    plan.expect_length = strlen(plan.expect);
    if (plan.expect_length > MAX_ANSWER) refuse("too long:", "--expect");
    plan.server = words + 1;
    for (char **word = plan.server; *word; word++) *word = expanded(*word);
    return plan;
}

static socklen_t parse_address(const char *text, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof *address);
    if (*text == '/') {
        struct sockaddr_un *local = (struct sockaddr_un *)address;
        if (strlen(text) >= sizeof local->sun_path) refuse("too long for a socket:", text);
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, text, strlen(text) + 1);
        return sizeof *local;
    }
    struct sockaddr_in *port = (struct sockaddr_in *)address;
    int64_t asked = number(text, "a port (or the path of a socket)");
    if (asked < 1 || asked > 65535) refuse("not a port:", text);
    port->sin_family = AF_INET;
    port->sin_port = htons((uint16_t)asked);
    port->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof *port;
}

static int open_ready(void)
{
    const char *value = getenv(ready_name);
    if (!value || !*value) refuse("not set:", ready_name);
    int fd = *value == '/' ? open(value, O_WRONLY | O_CLOEXEC) : (int)number(value, ready_name);
    if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC)) {
        say("cannot write to %s=%s: %s", ready_name, value, strerror(errno));
        exit(STATUS_NO_BYTE);
    }
    unsetenv(ready_name);
    return fd;
}

/* ---- the server ------------------------------------------------------------------------------------------------- */

static pid_t start(char **server, const sigset_t *unblocked)
{
    pid_t parent = getpid(), child = fork();
    if (child < 0) {
        say("cannot fork: %s", strerror(errno));
        exit(STATUS_CANNOT_EXECUTE);
    }
    if (child) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(STATUS_CANNOT_EXECUTE);
    sigprocmask(SIG_SETMASK, unblocked, NULL);
    execv(*server, server);
    int status = errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_EXECUTE;
    say("cannot execute %s: %s", *server, strerror(errno));
    _exit(status);
}

static int has_ended(pid_t server, int *status)
{
    return waitpid(server, status, WNOHANG) == server;
}

/* Wait for the time, or until a child ends. SIGCHLD is blocked, so one that came before ends the wait at once. */
static void pause_for(int64_t length_ns)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    struct timespec length = {.tv_sec = length_ns / 1000000000, .tv_nsec = length_ns % 1000000000};
    sigtimedwait(&ends, NULL, &length);
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void say_how(const char *when, int status)
{
    if (WIFSIGNALED(status)) say("the server was killed by signal %d %s", WTERMSIG(status), when);
    else say("the server ended with status %d %s", WEXITSTATUS(status), when);
}

/* Return the status of this program for a server that ended before it was asked to. */
static int too_soon(int status)
{
    say_how("before it answered", status);
    return exit_status(status) ? exit_status(status) : STATUS_TOO_SOON;
}

static int waited_for(pid_t server, int *status, int64_t until_ns)
{
    for (int64_t left_ns; !has_ended(server, status); pause_for(left_ns)) {
        left_ns = until_ns - now_ns();
        if (left_ns <= 0) return 0;
    }
    return 1;
}

/* End the server. Return 0 if it ended by itself with 0, or by SIGTERM as such programs do. */
static int end(pid_t server)
{
    int status;
    kill(server, SIGTERM);
    if (!waited_for(server, &status, now_ns() + END_MS * INT64_C(1000000))) {
        kill(server, SIGKILL);
        waitpid(server, &status, 0);
        say("the server did not end within %d ms of SIGTERM and was killed", END_MS);
        return STATUS_KILLED;
    }
    int found = exit_status(status);
    if (!found || found == 128 + SIGTERM) return 0;
    say_how("when it was told to end", status);
    return found;
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static void limit(int fd, int64_t left_ns)
{
    struct timeval left = {.tv_sec = left_ns / 1000000000, .tv_usec = left_ns % 1000000000 / 1000};
    if (!left.tv_sec && !left.tv_usec) left.tv_usec = 1; /* 0 would mean for ever */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &left, sizeof left);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof left);
}

/* Read as much of an answer as the right one has, no further than to where it is a wrong one. */
static enum attempt read_answer(int fd, const struct plan *plan, int64_t until_ns, struct wrong *wrong)
{
    char answer[MAX_ANSWER];
    size_t length = 0;
    while (length < plan->expect_length) {
        int64_t left_ns = until_ns - now_ns();
        if (left_ns <= 0) return NOT_YET;
        limit(fd, left_ns);
        ssize_t got = recv(fd, answer + length, sizeof answer - length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got > 0) length += (size_t)got;
        size_t compared = length < plan->expect_length ? length : plan->expect_length;
        int same = !memcmp(answer, plan->expect, compared);
        if (got > 0 && same) continue;
        if (!length) return NOT_YET;
        memcpy(wrong->text, answer, length);
        wrong->length = length;
        return WRONG;
    }
    return ANSWERED;
}

static enum attempt attempt(const struct plan *plan, const struct sockaddr_storage *address, socklen_t address_length,
                            int64_t until_ns, struct wrong *wrong)
{
    enum attempt result = NOT_YET;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return NOT_YET;
    limit(fd, until_ns - now_ns());
    if (!connect(fd, (const struct sockaddr *)address, address_length) &&
        send(fd, plan->ask, plan->ask_length, MSG_NOSIGNAL) == (ssize_t)plan->ask_length)
        result = read_answer(fd, plan, until_ns, wrong);
    close(fd);
    return result;
}

/* Say whether a table of sockets has one that listens on the port: proc_pid_net(5), state 0A. */
static int table_has(const char *path, unsigned port)
{
    char line[512];
    unsigned local, state;
    int found = 0;
    FILE *table = fopen(path, "re");
    while (table && !found && fgets(line, sizeof line, table))
        found = sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &local, &state) == 2 && local == port && state == 10;
    if (table) fclose(table);
    return found;
}

static enum attempt looked(const struct sockaddr_storage *address)
{
    unsigned port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    return table_has("/proc/net/tcp", port) || table_has("/proc/net/tcp6", port) ? ANSWERED : NOT_YET;
}

/* Wait for a server that is to go on until it is ended from outside; end as it ends. */
static int stay(pid_t server)
{
    int status;
    while (waitpid(server, &status, 0) < 0 && errno == EINTR) { }
    say_how("after it was ready", status);
    return exit_status(status);
}

/* Text from the server, so that it is one line of ASCII. */
static void say_no_answer(const struct plan *plan, const struct wrong *wrong)
{
    char shown[4 * 64 + 1];
    size_t length = 0;
    for (size_t at = 0; at < wrong->length && at < 64; at++) {
        unsigned char byte = (unsigned char)wrong->text[at];
        int plain = byte >= ' ' && byte < 127;
        length += (size_t)snprintf(shown + length, sizeof shown - length, plain ? "%c" : "\\x%02x", byte);
    }
    long long limit_ms = plan->deadline_ns / 1000000;
    if (length) say("no right answer within %lld ms; the last one began with \"%s\"", limit_ms, shown);
    else say("no answer within %lld ms", limit_ms);
}

int main(int argc, char **argv)
{
    if (argc < 2) refuse("arguments are needed, see the top of first_answer.c", "");
    struct plan plan = parse(argv + 1);
    struct sockaddr_storage address;
    socklen_t address_length = parse_address(plan.address, &address);
    static struct wrong wrong;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    int ready = open_ready(), status;
    int64_t until_ns = now_ns() + plan.deadline_ns;
    pid_t server = start(plan.server, &before);
    prctl(PR_SET_TIMERSLACK, 1); /* the pause is as long as it says; not the server's own, which is under way */
    while ((plan.listens ? looked(&address) : attempt(&plan, &address, address_length, until_ns, &wrong)) != ANSWERED) {
        if (has_ended(server, &status)) return too_soon(status);
        if (now_ns() >= until_ns) {
            say_no_answer(&plan, &wrong);
            end(server);
            return STATUS_NO_ANSWER;
        }
        pause_for(plan.pause_ns);
    }
    int told = write(ready, "!", 1) == 1;
    if (!told) say("cannot write the ready byte: %s", strerror(errno));
    status = told && plan.stay ? stay(server) : end(server);
    return told ? status : STATUS_NO_BYTE;
}
