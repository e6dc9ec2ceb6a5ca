/* micro: what the kernel and the memory take for one operation, in batches.
 *
 *   micro OPERATION [--seconds S] [--batches N] [--bytes B] [--huge default|never|madvise]
 *
 * Prints one line first, one for each batch, one last:
 *
 *   micro operation=null_call page_bytes=4096 ...
 *   batch=1 count=1048576 ns=30012345
 *   done batches=20 count=... checks=...
 *
 * A batch lasts S/N seconds: as many operations as fit, so that a slow machine takes no longer than a fast one. The
 * clock is read between chunks of operations; chunks grow until one takes a sixteenth of a batch. Nothing is thrown
 * away: the first batch has the growth, and its warm-up, in it. Each operation proves that it was done; where one was
 * not, the program says so and ends with 1. Wrong arguments end it with 2.
 *
 * `micro null` ends at once: what it takes is the harness. `micro data` writes text that can be compressed, the same
 * for the same --bytes everywhere.
 *
 * Operations: null_call (getpid), switch (one byte over a pipe to another process on the same CPU; a round trip is two),
 * fork_exec (fork, execute this program, wait), map (mmap and munmap of 64 KiB, one page touched), futex (hand over to
 * another process on the same CPU; a round trip is two); bandwidth (a = b + s*c over three arrays, as STREAM's triad;
 * counts bytes), latency (one load that depends on the one before, lines of 64 bytes in random order), touch (first
 * write to a page of 4 KiB, giving back included).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define LINE 64
#define SMALL_PAGE 4096
#define MAP_BYTES 65536
#define CHUNKS_PER_BATCH 16
#define EXECUTED 42

enum huge { HUGE_DEFAULT, HUGE_NEVER, HUGE_MADVISE };

static struct {
    const char *operation;
    double seconds;
    unsigned batches;
    size_t bytes;
    enum huge huge;
} plan = {.seconds = 0.5, .batches = 20, .bytes = 64u << 20};

static uint64_t checks; /* how much was proved to be done */

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "micro: %s: %s%s%s\n", plan.operation, what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static _Noreturn void usage(const char *what)
{
    fprintf(stderr, "micro: %s\nmicro OPERATION [--seconds S] [--batches N] [--bytes B] [--huge default|never|madvise]\n",
            what);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

/* xorshift64 (Marsaglia 2003): the same sequence everywhere */
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void *map(size_t bytes)
{
    void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) fail("mmap");
    if (plan.huge == HUGE_MADVISE && madvise(found, bytes, MADV_HUGEPAGE)) fail("madvise(MADV_HUGEPAGE)");
    /* a kernel without huge pages knows no MADV_NOHUGEPAGE, and gives none */
    if (plan.huge == HUGE_NEVER && madvise(found, bytes, MADV_NOHUGEPAGE) && errno != EINVAL)
        fail("madvise(MADV_NOHUGEPAGE)");
    errno = 0;
    return found;
}

static long minor_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

/* --- kernel ------------------------------------------------------------------------------------------------------ */

static void null_call(uint64_t count)
{
    /* not by getpid(): a C library may remember it */
    uint64_t sum = 0, pid = (uint64_t)syscall(SYS_getpid);
    for (uint64_t i = 0; i < count; i++) sum += (uint64_t)syscall(SYS_getpid);
    if (pid == 0 || sum != pid * count) fail("getpid did not return the process's id");
    checks += count;
}

static void map_unmap(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        volatile char *found = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED) fail("mmap");
        *found = 1; /* written first: reading it would be a fault of its own */
        checks += (uint64_t)*found;
        if (munmap((void *)found, MAP_BYTES)) fail("munmap");
    }
}

static void fork_exec(uint64_t count)
{
    char *words[] = {"micro", "executed", NULL}, *none[] = {NULL};
    for (uint64_t i = 0; i < count; i++) {
        int status;
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            execve("/proc/self/exe", words, none);
            _exit(127);
        }
        if (waitpid(child, &status, 0) != child) fail("waitpid");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXECUTED) fail("the program was not executed");
        checks++;
    }
}

static void to_one_cpu(void)
{
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine)) fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mine)) {
            CPU_ZERO(&mine);
            CPU_SET(cpu, &mine);
            if (sched_setaffinity(0, sizeof mine, &mine)) fail("sched_setaffinity");
            return;
        }
}

static pid_t partner;

static pid_t fork_partner(void)
{
    pid_t parent = getpid();
    to_one_cpu();
    partner = fork();
    if (partner < 0) fail("fork");
    if (partner == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
    }
    return partner;
}

static int there[2], back[2];

static void prepare_switch(void)
{
    unsigned char byte;
    if (pipe(there) || pipe(back)) fail("pipe");
    if (fork_partner()) return;
    while (read(there[0], &byte, 1) == 1) {
        byte++;
        if (write(back[1], &byte, 1) != 1) break;
    }
    _exit(0);
}

static void switches(uint64_t count)
{
    for (uint64_t i = 0; i < count; i += 2) {
        unsigned char byte = (unsigned char)i, answer = 0;
        if (write(there[1], &byte, 1) != 1 || read(back[0], &answer, 1) != 1) fail("the other process is gone");
        if (answer != (unsigned char)(byte + 1)) fail("the other process answered wrongly");
        checks += 2;
    }
}

static uint32_t *turn; /* even: ours, odd: the partner's */

static void wait_for_turn(uint32_t theirs)
{
    uint32_t value;
    while (((value = __atomic_load_n(turn, __ATOMIC_ACQUIRE)) & 1) == theirs)
        if (syscall(SYS_futex, turn, FUTEX_WAIT, value, NULL, NULL, 0) && errno != EAGAIN && errno != EINTR)
            fail("futex wait");
    errno = 0;
}

static void hand_over(void)
{
    __atomic_add_fetch(turn, 1, __ATOMIC_RELEASE);
    if (syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0) < 0) fail("futex wake");
}

static void prepare_futex(void)
{
    turn = mmap(NULL, SMALL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED) fail("mmap");
    if (fork_partner()) return;
    for (;;) {
        wait_for_turn(0);
        hand_over();
    }
}

static void futexes(uint64_t count)
{
    uint32_t before = *turn;
    for (uint64_t i = 0; i < count; i += 2) {
        hand_over();
        wait_for_turn(1);
    }
    if ((uint32_t)(*turn - before) != (uint32_t)count) fail("the other process did not take its turns");
    checks += count;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

typedef double pair __attribute__((vector_size(16), may_alias));

static pair *a, *b, *c;
static size_t elements; /* pairs in each array */
static uint64_t faults, pages;

static void count_faults(long before, size_t bytes)
{
    faults += (uint64_t)(minor_faults() - before);
    pages += bytes / SMALL_PAGE;
}

static void prepare_bandwidth(void)
{
    long before = minor_faults();
    elements = plan.bytes / 3 / sizeof(pair) & ~(size_t)3;
    if (elements == 0) usage("--bytes: too few for three arrays");
    a = map(elements * sizeof(pair));
    b = map(elements * sizeof(pair));
    c = map(elements * sizeof(pair));
    for (size_t i = 0; i < elements; i++) {
        a[i] = (pair){0, 0};
        b[i] = (pair){(double)(i & 1023), 1};
        c[i] = (pair){2, (double)(i & 511)};
    }
    count_faults(before, 3 * elements * sizeof(pair));
}

static void bandwidth(uint64_t count)
{
    static size_t at;
    static double scale = 3;
    for (uint64_t left = count / (3 * sizeof(pair)); left;) {
        size_t run = elements - at < left ? elements - at : left;
        pair s = {scale, scale};
        for (size_t i = at; i < at + run; i++) a[i] = b[i] + s * c[i];
        size_t middle = at + run / 2;
        if (a[middle][0] != (double)(middle & 1023) + scale * 2) fail("a sum is wrong");
        checks++;
        at += run, left -= run;
        if (at == elements) at = 0, scale = scale < 1000 ? scale + 1 : 3;
    }
}

struct line {
    struct line *next;
    char rest[LINE - sizeof(struct line *)];
};

static struct line *position;
static size_t lines;

/* One cycle through all lines, each as likely as any other (Sattolo 1986): a prefetcher cannot guess the next one. */
static void prepare_latency(void)
{
    long before = minor_faults();
    lines = plan.bytes / LINE;
    if (lines < 2) usage("--bytes: too few for two lines");
    struct line *all = map(lines * LINE);
    for (size_t i = 0; i < lines; i++) all[i].next = &all[i];
    for (size_t i = lines - 1; i > 0; i--) {
        size_t other = next_random() % i;
        struct line *next = all[i].next;
        all[i].next = all[other].next;
        all[other].next = next;
    }
    position = all;
    for (size_t i = 1; i <= lines; i++) {
        position = position->next;
        if ((position == all) != (i == lines)) fail("the lines are not one cycle");
    }
    count_faults(before, lines * LINE);
}

static void latency(uint64_t count)
{
    static struct line *first;
    static size_t walked;
    struct line *at = position;
    if (!first) first = at;
    for (uint64_t i = 0; i < count; i++) at = at->next;
    walked = (walked + count) % lines;
    if ((at == first) != (walked == 0)) fail("a line was left out");
    position = at;
    checks++;
}

static void touch(uint64_t count)
{
    static volatile char *region;
    static size_t at;
    size_t whole = plan.bytes & ~(size_t)(SMALL_PAGE - 1);
    if (!whole) usage("--bytes: less than a page");
    for (uint64_t i = 0; i < count; i++) {
        if (!region) region = map(whole), at = 0;
        region[at] = 1; /* written first: reading it would be a fault of its own */
        checks += (uint64_t)region[at];
        at += SMALL_PAGE;
        if (at == whole) {
            if (munmap((void *)region, whole)) fail("munmap");
            region = NULL;
        }
    }
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

static void nothing(void) { }

struct operation {
    const char *name;
    void (*prepare)(void);
    void (*run)(uint64_t count);
    uint64_t step; /* a chunk is a multiple of it */
};

static const struct operation operations[] = {
    {"null_call", nothing, null_call, 64},
    {"switch", prepare_switch, switches, 2},
    {"fork_exec", nothing, fork_exec, 1},
    {"map", nothing, map_unmap, 4},
    {"futex", prepare_futex, futexes, 2},
    {"bandwidth", prepare_bandwidth, bandwidth, 48 * 1024},
    {"latency", prepare_latency, latency, 256},
    {"touch", nothing, touch, 64},
};

static void run(const struct operation *operation)
{
    uint64_t chunk = operation->step, total = 0;
    uint64_t batch_ns = (uint64_t)(plan.seconds * (double)NS_PER_S / plan.batches);
    operation->prepare();
    printf("micro operation=%s page_bytes=%ld bytes=%zu\n", operation->name, sysconf(_SC_PAGESIZE), plan.bytes);
    fflush(stdout);
    long before = minor_faults();
    for (unsigned batch = 1; batch <= plan.batches; batch++) {
        uint64_t count = 0, start = now_ns(), last = start, now;
        do {
            operation->run(chunk);
            count += chunk;
            now = now_ns();
            if (now - last < batch_ns / CHUNKS_PER_BATCH / 2) chunk *= 2;
            last = now;
        } while (now - start < batch_ns);
        total += count;
        printf("batch=%u count=%llu ns=%llu\n", batch, (unsigned long long)count, (unsigned long long)(now - start));
    }
    if (operation->run == touch) faults = (uint64_t)(minor_faults() - before), pages = total;
    if (partner) {
        kill(partner, SIGKILL);
        waitpid(partner, NULL, 0);
    }
    if (!checks) fail("nothing was proved");
    printf("done batches=%u count=%llu checks=%llu faults=%llu pages=%llu\n", plan.batches, (unsigned long long)total,
           (unsigned long long)checks, (unsigned long long)faults, (unsigned long long)pages);
}

/* Words of a made-up language, frequent ones first, in lines: compresses about as text does. */
static void data(void)
{
    static char words[4096][12];
    char line[4096];
    for (size_t i = 0; i < 4096; i++) {
        size_t length = 2 + next_random() % 9;
        for (size_t k = 0; k < length; k++) words[i][k] = (char)('a' + next_random() % 26);
    }
    for (size_t left = plan.bytes; left;) {
        size_t used = 0;
        while (used < sizeof line - 16) {
            uint64_t r = next_random();
            size_t rank = (size_t)(r >> 52) & (size_t)(r >> 40) & 4095;
            size_t length = strlen(words[rank]);
            memcpy(line + used, words[rank], length);
            used += length;
            line[used++] = (r & 15) == 0 ? '\n' : ' ';
        }
        if (used > left) used = left;
        if (fwrite(line, 1, used, stdout) != used) fail("write");
        left -= used;
    }
}

/* --- arguments --------------------------------------------------------------------------------------------------- */

static double number(const char *option, const char *text, double least, double most)
{
    char *end;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !(value >= least && value <= most)) {
        fprintf(stderr, "micro: %s: expected a number from %g to %g\n", option, least, most);
        exit(2);
    }
    return value;
}

static enum huge huge_pages(const char *text)
{
    static const char *const names[] = {"default", "never", "madvise"};
    for (int i = 0; text && i < 3; i++)
        if (!strcmp(text, names[i])) return (enum huge)i;
    usage("--huge: expected default, never or madvise");
}

static void read_arguments(char **word)
{
    for (; *word; word += 2) {
        if (!strcmp(*word, "--seconds")) plan.seconds = number(*word, word[1], 0.001, 3600);
        else if (!strcmp(*word, "--batches")) plan.batches = (unsigned)number(*word, word[1], 1, 1000);
        else if (!strcmp(*word, "--bytes")) plan.bytes = (size_t)number(*word, word[1], 1, 1ull << 40);
        else if (!strcmp(*word, "--huge")) plan.huge = huge_pages(word[1]);
        else usage("unknown option");
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) usage("expected an operation");
    plan.operation = argv[1];
    if (!strcmp(argv[1], "executed")) return EXECUTED;
    if (!strcmp(argv[1], "null")) return 0;
    read_arguments(argv + 2);
    if (!strcmp(argv[1], "data")) {
        data();
        return fflush(stdout) ? 1 : 0;
    }
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (!strcmp(argv[1], operations[i].name)) {
            run(&operations[i]);
            return fflush(stdout) ? 1 : 0;
        }
    usage("unknown operation");
}
