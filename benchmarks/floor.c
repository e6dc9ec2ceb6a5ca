/* The kernel's floor for a start: the bare system calls, with nothing between them.
 *
 *   cgroup mkdir and limits -> clone3 -> join cgroups -> mounts -> pivot_root -> execve -> first byte on descriptor 3
 *   -> exit -> reaped -> cgroups removed
 *
 * Does one start for each letter on standard input, so that a driver (compare_start.py) can interleave it with the
 * launcher that it is compared with, and answers with a line: ns to ready, ns to reaped since clone, ns to cleaned.
 *   c  container: 6 namespaces, overlay root, all cgroups, /dev, /tmp, /sys, masked paths
 *   n  native: chroot, all cgroups          b  native: chroot, no cgroup
 *
 *   cc -O2 -static -o floor floor.c
 *   floor ROOT COMMAND [PATH...] [HIERARCHY [FILE=VALUE...]]...
 *                                  PATH: one to mask     HIERARCHY: 1:DIR or 2:DIR, a cgroup v1 or v2 mount
 *
 * COMMAND is a small static program that writes one byte to the descriptor in BENCHBOX_READY and exits 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum root_kind { ROOT_CHROOT, ROOT_FULL };

#define MAX_HIERARCHIES 16
#define MAX_LIMITS 8
static struct hierarchy {
    int version, limit_count;
    const char *dir, *file[MAX_LIMITS], *value[MAX_LIMITS];
} hierarchies[MAX_HIERARCHIES];
static int hierarchy_count;
#define MAX_MASKED 32
static const char *masked[MAX_MASKED]; /* paths to hide, below /proc and /sys */
static int masked_count;

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET) /* cgroup: after joining */

static char scratch[] = "/tmp/floor-XXXXXX";
static const char *root, *command;

static void die(const char *what) { fprintf(stderr, "floor: %s: %s\n", what, strerror(errno)); exit(1); }
static long long now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }

static int put(const char *dir, int round, const char *file, const char *value)
{
    char path[256];
    snprintf(path, sizeof path, "%s/floor-%d/%s", dir, round, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int failed = write(fd, value, strlen(value)) < 0;
    close(fd);
    return failed ? -1 : 0;
}

static int make_cgroups(int round)
{
    char path[256];
    int v2_fd = -1;
    for (int i = 0; i < hierarchy_count; i++) {
        const struct hierarchy *h = &hierarchies[i];
        snprintf(path, sizeof path, "%s/floor-%d", h->dir, round);
        if (mkdir(path, 0755)) die(path);
        for (int j = 0; j < h->limit_count; j++)
            if (put(h->dir, round, h->file[j], h->value[j])) die(h->file[j]);
        if (h->version == 2 && (v2_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) die(path);
    }
    return v2_fd;
}

static void join_v1(int round)
{
    for (int i = 0; i < hierarchy_count; i++)
        if (hierarchies[i].version == 1 && put(hierarchies[i].dir, round, "cgroup.procs", "0")) die(hierarchies[i].dir);
}

static void remove_cgroups(int round)
{
    char path[256];
    for (int i = 0; i < hierarchy_count; i++) {
        snprintf(path, sizeof path, "%s/floor-%d", hierarchies[i].dir, round);
        if (rmdir(path)) die(path);
    }
}

static void mask(const char *path)
{
    if (!mount("/dev/null", path, NULL, MS_BIND, NULL) || errno == ENOENT) return;
    if (errno != ENOTDIR || mount("/sys/fs/cgroup", path, NULL, MS_BIND, NULL)) die(path);
}

static void enter_root(enum root_kind kind)
{
    char merged[256], options[1024];
    if (kind == ROOT_CHROOT) {
        if (chroot(root) || chdir("/")) die("chroot");
        return;
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("make / private");
    snprintf(merged, sizeof merged, "%s/merged", scratch);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", root, scratch, scratch);
    if (mount("overlay", merged, "overlay", 0, options) || chdir(merged)) die("overlay root");
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")) die("/dev");
    const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
    for (size_t i = 0; i < 6; i++) {
        char to[32], from[32];
        snprintf(to, sizeof to, "dev/%s", nodes[i]); snprintf(from, sizeof from, "/dev/%s", nodes[i]);
        int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
        if (fd < 0 || mount(from, to, NULL, MS_BIND, NULL)) die(to);
        close(fd);
    }
    if (mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL)) die("/tmp");
    if (mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) die("/sys");
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/")) die("pivot_root");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) die("mount /proc");
    for (int i = 0; i < masked_count; i++) mask(masked[i]);
    if (mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL)) die("/proc/sys");
    if (mount(NULL, "/proc/sys", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL)) die("/proc/sys read-only");
}

static void start_once(enum root_kind kind, int with_cgroups, int round)
{
    int v2_fd = -1, ready_pipe[2], status;
    char byte;
    if (pipe2(ready_pipe, O_CLOEXEC)) die("pipe");
    long long requested = now_ns();
    if (with_cgroups) v2_fd = make_cgroups(round);
    struct clone_args args = {
        .flags = (kind == ROOT_FULL ? NAMESPACES : 0) | CLONE_VFORK | (v2_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = v2_fd >= 0 ? v2_fd : 0,
    };
    long long cloned = now_ns();
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) {
        if (with_cgroups) join_v1(round);
        if (kind == ROOT_FULL && unshare(CLONE_NEWCGROUP)) die("unshare the cgroup namespace");
        enter_root(kind);
        if (dup2(ready_pipe[1], 3) < 0) die("dup2");
        fcntl(3, F_SETFD, 0);
        execle(command, command, NULL, (char *[]){"BENCHBOX_READY=3", NULL});
        die(command);
    }
    close(ready_pipe[1]);
    if (read(ready_pipe[0], &byte, 1) != 1) die("read");
    long long ready = now_ns();
    if (waitpid(pid, &status, 0) != pid || status != 0) die("the command failed");
    long long reaped = now_ns();
    close(ready_pipe[0]);
    if (v2_fd >= 0) close(v2_fd);
    if (with_cgroups) remove_cgroups(round);
    printf("%lld %lld %lld\n", ready - requested, reaped - cloned, now_ns() - requested);
    fflush(stdout);
}

static void add_argument(char *argument)
{
    if (argument[0] == '/' && masked_count < MAX_MASKED) {
        masked[masked_count++] = argument;
        return;
    }
    if (argument[1] == ':') {
        hierarchies[hierarchy_count++] = (struct hierarchy){.version = argument[0] - '0', .dir = argument + 2};
        return;
    }
    struct hierarchy *h = &hierarchies[hierarchy_count - 1];
    char *value = strchr(argument, '=');
    *value = 0;
    h->file[h->limit_count] = argument;
    h->value[h->limit_count++] = value + 1;
}

int main(int argc, char **argv)
{
    if (argc < 3) { fprintf(stderr, "usage: floor ROOT COMMAND [1:DIR|2:DIR [FILE=VALUE...]]...\n"); return 2; }
    root = argv[1]; command = argv[2];
    for (int i = 3; i < argc && hierarchy_count < MAX_HIERARCHIES; i++) add_argument(argv[i]);
    if (!mkdtemp(scratch)) die(scratch);
    const char *parts[] = {"upper", "work", "merged"};
    char path[256];
    if (mount("floor", scratch, "tmpfs", 0, "mode=700")) die(scratch);
    for (size_t i = 0; i < 3; i++) { snprintf(path, sizeof path, "%s/%s", scratch, parts[i]); mkdir(path, 0755); }
    int round = 0;
    for (int letter; (letter = getchar()) != EOF; round++) {
        if (letter == 'c') start_once(ROOT_FULL, 1, round);
        else if (letter == 'n') start_once(ROOT_CHROOT, 1, round);
        else if (letter == 'b') start_once(ROOT_CHROOT, 0, round);
    }
    umount2(scratch, MNT_DETACH);
    return rmdir(scratch) != 0;
}
