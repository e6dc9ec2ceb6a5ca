/* launch: starts one command in an environment that its arguments describe, and stamps each stage of the start.
 *
 * One launcher for native and container: what differs between them is what the arguments ask for, nothing else. The
 * whole plan is in the arguments (Python plans, launch executes); every time is CLOCK_MONOTONIC in ns, taken here.
 *
 * The order of a start, and why the kernel needs it:
 *   1. cgroups are made and limited before anything can join them.
 *   2. clone3 puts the child into the v2 cgroup at birth (CLONE_INTO_CGROUP); v1 has no such thing, so the child joins
 *      those itself before it does anything that counts.
 *   3. The cgroup namespace is unshared after joining, because its root is the cgroup that the caller is in.
 *   4. The mounts of the new root are made after the old root is detached: while both are stacked at the same place a
 *      ".." at the root leads from the new one to the old one, so a symbolic link of the image could lead outside. What
 *      has to come from outside (bind sources; proc and sysfs of a user namespace, which it may make only while the
 *      host's own are visible) is taken up before, as a mount that is nowhere yet.
 *   5. Capabilities go after the mounts, the seccomp program is last: it must not have to allow what a start needs.
 *
 * Invoked under a name that starts with "qemu" it is the emulator that libvirt starts: it joins the cgroups named in
 * BENCHBOX_JOIN and becomes the program that the link "real" beside it points to.
 *
 *   cc -O2 -static -o launch launch.c
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Kernel interfaces that not every libc's headers have; numbers are the same on all architectures. */
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif
#ifndef SYS_fsconfig
#define SYS_fsconfig 431
#endif
#ifndef SYS_fsmount
#define SYS_fsmount 432
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#define INTO_CGROUP 0x200000000ULL     /* CLONE_INTO_CGROUP */
#define TREE_CLONE 1                   /* OPEN_TREE_CLONE */
#define TREE_RECURSIVE 0x8000          /* AT_RECURSIVE */
#define MOVE_FROM_EMPTY_PATH 4         /* MOVE_MOUNT_F_EMPTY_PATH */
#define ITSELF 0x1000                  /* AT_EMPTY_PATH */
#define OPEN_CLOEXEC 1                 /* FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC */
#define CREATE_COMMAND 6               /* FSCONFIG_CMD_CREATE */
#define READ_ONLY_ATTRIBUTE 1          /* MOUNT_ATTR_RDONLY */
#define GIVES_NOTHING 6                /* MOUNT_ATTR_NOSUID, _NODEV: no file there gives a user or a device */
#define QUIET_ATTRIBUTES 14            /* MOUNT_ATTR_NOSUID, _NODEV, _NOEXEC */
#define RANGE_CLOEXEC 4                /* CLOSE_RANGE_CLOEXEC */
#define JOIN_SESSION_KEYRING 1         /* KEYCTL_JOIN_SESSION_KEYRING */
#define CAPABILITY_VERSION_3 0x20080522
#define SECCOMP_FILTER_MODE 2          /* SECCOMP_MODE_FILTER */
#define SECCOMP_INSTALL 1              /* SECCOMP_SET_MODE_FILTER */
#define SECCOMP_SPECULATION_AS_IS 4    /* SECCOMP_FILTER_FLAG_SPEC_ALLOW */

#define MAX_CGROUPS 16
#define MAX_SETTINGS 64
#define MAX_READS 96
#define MAX_MOUNTS 64
#define MAX_ENVIRONMENT 256
#define MAX_FILTER 4096                /* BPF_MAXINSNS */
#define MAX_CPUS CPU_SETSIZE
#define MAX_REPORTED_FILE 16384
#define STATUS_FAILED 125              /* launch itself failed, as with other launchers */
#define STATUS_CANNOT_EXECUTE 126
#define STATUS_NOT_FOUND 127
#define REMOVE_ATTEMPTS 2000           /* of 1 ms: a killed process leaves its cgroup only some time after its end */
#define REMOVE_DEPTH 16                /* as many folders are open at once while a tree is removed */

struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
struct mount_attributes { uint64_t set, clear, propagation, user_namespace; };
struct filter_instruction { uint16_t code; uint8_t jump_true, jump_false; uint32_t k; };
struct filter_program { unsigned short length; struct filter_instruction *instructions; };
struct capability_header { uint32_t version; int pid; };
struct capability_data { uint32_t effective, permitted, inheritable; };

struct cgroup { const char *path; int version; };
struct setting { int cgroup; const char *file, *value; int optional; };
struct cgroup_file { int cgroup; const char *file; };
struct id_map { const char *inside, *outside, *count; };

enum root_kind { ROOT_HOST, ROOT_CHROOT, ROOT_BIND, ROOT_READ_ONLY_BIND, ROOT_OVERLAY };
enum mount_kind { MOUNT_PROC, MOUNT_SYS, MOUNT_DEV, MOUNT_TMPFS, MOUNT_BIND, MOUNT_READ_ONLY_BIND, MOUNT_DEVICE_BIND, MOUNT_MASK, MOUNT_READ_ONLY };
struct mount_step { enum mount_kind kind; const char *source, *path; int tree; long size; };

static struct {
    struct cgroup cgroups[MAX_CGROUPS];
    struct setting settings[MAX_SETTINGS];
    struct cgroup_file reads[MAX_READS];
    struct mount_step mounts[MAX_MOUNTS];
    const char *environment[MAX_ENVIRONMENT + 1];
    int cgroup_count, setting_count, read_count, mount_count, environment_count;
    unsigned long long namespaces;
    int new_cgroup_namespace, loopback, keep_environment, no_new_privs, drop_capabilities, die_with_parent, announce, new_keyring, no_core;
    uint64_t kept_capabilities;
    struct id_map uid_map, gid_map;
    enum root_kind root_kind;
    const char *root, *scratch, *hostname, *working_folder, *cpus;
    long uid, gid, deadline_ms, tmpfs_size; /* of the one that is named next */
    int report, ready, seccomp, gate, network;
    char **command;
} plan = {.uid = -1, .gid = -1, .report = -1, .ready = -1, .seccomp = -1, .gate = -1, .network = -1, .keep_environment = 1, .working_folder = "/"};

/* What the child tells the parent before it executes: one shared page. */
static struct shared {
    uint64_t started_ns, isolated_ns, capabilities;
    int failed, error, no_new_privs, seccomp;
    char what[512], cpus[512];
} *shared;

static struct {
    uint64_t requested_ns, cgroups_ns, exec_ns, ready_ns, exited_ns, cleaned_ns;
    int status, timed_out, ended;
    struct rusage usage; /* of the command and of all that it waited for */
    char users[96];
} seen;

static volatile sig_atomic_t asked_to_end;
static int made_cgroups, made_scratch;
static pid_t unfinished; /* the child, until it is reaped */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- the report: one buffer, one write, after all is over ---- */

static char *report_text;
static size_t report_length, report_room;

static void report_bytes(const char *bytes, size_t length)
{
    if (report_length + length > report_room) {
        report_room = (report_length + length) * 2 + 4096;
        report_text = realloc(report_text, report_room);
        if (!report_text) _exit(STATUS_FAILED);
    }
    memcpy(report_text + report_length, bytes, length);
    report_length += length;
}

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...)
{
    char line[PATH_MAX + 256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length > 0) report_bytes(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

static void report_stage(const char *name, uint64_t at_ns)
{
    if (at_ns) report("stage %s %llu\n", name, (unsigned long long)at_ns);
}

static void write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return; /* whoever wanted the report has gone */
        bytes += written;
        length -= (size_t)written;
    }
}

/* ---- small file helpers ---- */

static int join_path(char *to, size_t room, const char *folder, const char *file)
{
    int length = snprintf(to, room, "%s/%s", folder, file);
    if (length < 0 || (size_t)length >= room) { errno = ENAMETOOLONG; return -1; }
    return 0;
}

static int put(const char *folder, const char *file, const char *value)
{
    char path[PATH_MAX];
    if (join_path(path, sizeof path, folder, file)) return -1;
    /* Not open(3): musl's has a second call for O_CLOEXEC, and a start does this a dozen times. */
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, value, strlen(value));
    int error = errno;
    close(fd);
    errno = error;
    return written < 0 ? -1 : 0;
}

/* ---- what a command has written ---- */

/* By descriptors: no path is ever too long, no link is followed. However deep a command has nested its folders, few are
 * open at once: what lies too deep is moved up into the top and has its turn there, under a number for its name. What
 * cannot be removed stays, for whoever removes the folder that all of it lies in. As in benchbox/linux/removal.py. */
struct removal { int top; uint64_t next; };

static void remove_folder(struct removal *removal, int above, const char *name, int depth);

static void moved_name(char *name, size_t size, uint64_t number) { snprintf(name, size, ".removed-%016llx", (unsigned long long)number); }

/* What belongs to an ordinary user may be closed to that user. */
static int open_to_empty(int above, const char *name)
{
    char place[64];
    int entry = openat(above, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (entry < 0) return -1;
    snprintf(place, sizeof place, "/proc/self/fd/%d", entry);
    if (geteuid()) chmod(place, 0700);
    int folder = openat(entry, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(entry);
    return folder;
}

/* Takes over the descriptor. */
static void remove_contents(struct removal *removal, int folder, int depth)
{
    DIR *entries = fdopendir(folder);
    if (!entries) { close(folder); return; }
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (entry->d_type == DT_DIR || (unlinkat(folder, entry->d_name, 0) && errno == EISDIR)) remove_folder(removal, folder, entry->d_name, depth);
    }
    closedir(entries);
}

static void remove_folder(struct removal *removal, int above, const char *name, int depth)
{
    char moved[32];
    /* What something is mounted on is busy, whatever is in it, and is not entered. */
    if (!unlinkat(above, name, AT_REMOVEDIR) || (errno != ENOTEMPTY && errno != EEXIST)) return;
    int folder = open_to_empty(above, name);
    if (folder < 0) return;
    if (depth < REMOVE_DEPTH) {
        remove_contents(removal, folder, depth + 1);
        unlinkat(above, name, AT_REMOVEDIR);
        return;
    }
    close(folder);
    moved_name(moved, sizeof moved, removal->next);
    renameat(above, name, removal->top, moved);
    removal->next++;
}

static void remove_tree(const char *path)
{
    char moved[32];
    uint64_t number = now_ns(); /* nobody can have known it, and have taken the name */
    struct removal removal = {.top = open_to_empty(AT_FDCWD, path), .next = number};
    if (removal.top < 0) return;
    int top = fcntl(removal.top, F_DUPFD_CLOEXEC, 0);
    if (top >= 0) remove_contents(&removal, top, 1);
    for (; number < removal.next; number++) {
        moved_name(moved, sizeof moved, number);
        remove_folder(&removal, removal.top, moved, 1);
    }
    close(removal.top);
    rmdir(path);
}

/* ---- cgroups ---- */

static void kill_members(const struct cgroup *group)
{
    char path[PATH_MAX];
    long pid;
    if (!put(group->path, "cgroup.kill", "1")) return; /* v1 has no such file, nor has v2 before Linux 5.14 */
    FILE *members = join_path(path, sizeof path, group->path, "cgroup.procs") ? NULL : fopen(path, "re");
    while (members && fscanf(members, "%ld", &pid) == 1)
        if (pid > 0) kill((pid_t)pid, SIGKILL);
    if (members) fclose(members);
}

static void remove_cgroup(const struct cgroup *group)
{
    for (int attempt = 0; attempt < REMOVE_ATTEMPTS && rmdir(group->path) && errno == EBUSY; attempt++) {
        /* What the command left behind: end it and wait for it, it is ours by PR_SET_CHILD_SUBREAPER. */
        kill_members(group);
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
        if (attempt) usleep(1000);
    }
}

static int own_users(void) { return (plan.namespaces & CLONE_NEWUSER) != 0; }

static void remove_scratch(void)
{
    /* What a command leaves that wrote nothing, deepest first; only one that did write needs the walk. */
    static const char *const folders[] = {"work/work", "work", "upper", "root"};
    char path[PATH_MAX];
    for (int i = 0; i < (own_users() ? 4 : 3); i++)
        if (!join_path(path, sizeof path, plan.scratch, folders[i])) rmdir(path);
    if (rmdir(plan.scratch) && (errno == ENOTEMPTY || errno == EEXIST)) remove_tree(plan.scratch);
}

static void clean_up(void)
{
    while (made_cgroups > 0) remove_cgroup(&plan.cgroups[--made_cgroups]);
    if (made_scratch) remove_scratch();
    made_scratch = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
}

/* The parent's way out when it cannot go on: everything that was made is removed, then the reason is told. */
__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    char what[1024];
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (unfinished > 0 && !kill(unfinished, SIGKILL)) waitpid(unfinished, NULL, 0);
    clean_up();
    fprintf(stderr, "launch: %s%s%s\n", what, error ? ": " : "", error ? strerror(error) : "");
    if (plan.report >= 0) {
        report("requested %llu\nend error %s%s%s\n", (unsigned long long)seen.requested_ns, what, error ? ": " : "",
               error ? strerror(error) : "");
        write_all(plan.report, report_text, report_length);
    }
    exit(STATUS_FAILED);
}

static void make_cgroups(void)
{
    for (int i = 0; i < plan.cgroup_count; i++) {
        if (mkdir(plan.cgroups[i].path, 0755)) die("cannot make the cgroup %s", plan.cgroups[i].path);
        made_cgroups = i + 1;
    }
    for (int i = 0; i < plan.setting_count; i++) {
        const struct setting *setting = &plan.settings[i];
        const char *folder = plan.cgroups[setting->cgroup].path;
        if (put(folder, setting->file, setting->value) && !(setting->optional && errno == ENOENT))
            die("cannot write %s to %s/%s", setting->value, folder, setting->file);
    }
}

static int unified_cgroup(void)
{
    for (int i = 0; i < plan.cgroup_count; i++)
        if (plan.cgroups[i].version == 2) return open(plan.cgroups[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return -1;
}

/* Joins the v1 cgroups; "0" is the writer itself. By "tasks": a thread that moves itself alone need not hold up the
 * forks and exits of the whole host, as a write to cgroup.procs does (which waits 5 to 20 ms for it after a pause).
 * Returns the path that refused, NULL when all is well. */
static const char *join_cgroups(const char *pid)
{
    for (int i = 0; i < plan.cgroup_count; i++)
        if (plan.cgroups[i].version == 1 && put(plan.cgroups[i].path, "tasks", pid)) return plan.cgroups[i].path;
    return NULL;
}

static void report_cgroup_file(const struct cgroup_file *wanted)
{
    static char content[MAX_REPORTED_FILE];
    char path[PATH_MAX];
    if (join_path(path, sizeof path, plan.cgroups[wanted->cgroup].path, wanted->file)) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return; /* not every kernel has every file: absent from the report is absent on this host */
    ssize_t length = read(fd, content, sizeof content);
    close(fd);
    if (length < 0) return; /* an empty file is an answer, too: io.stat has no line for no I/O */
    report("read %zd %s\n", length, path);
    report_bytes(content, (size_t)length);
    report_bytes("\n", 1);
}

/* ---- the child: from its first instruction to execve ---- */

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    shared->error = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(shared->what, sizeof shared->what, format, arguments);
    va_end(arguments);
    shared->failed = STATUS_FAILED;
    _exit(STATUS_FAILED);
}

/* Says whether the text is a list of CPUs, from its begin to its end. */
static int parse_cpus(const char *text, cpu_set_t *set)
{
    CPU_ZERO(set);
    for (const char *at = text;; at++) {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        if (end == at) return 0;
        at = end;
        if (*at == '-') {
            last = strtol(at + 1, &end, 10);
            if (end == at + 1) return 0;
            at = end;
        }
        for (long cpu = first; cpu >= 0 && cpu <= last && cpu < MAX_CPUS; cpu++) CPU_SET((size_t)cpu, set);
        if (*at != ',') return !*at;
    }
}

static void describe_cpus(char *to, size_t room)
{
    cpu_set_t set;
    size_t used = 0;
    if (sched_getaffinity(0, sizeof set, &set)) return;
    for (int cpu = 0; cpu < MAX_CPUS && used + 16 < room; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        int last = cpu;
        while (last + 1 < MAX_CPUS && CPU_ISSET(last + 1, &set)) last++;
        used += (size_t)snprintf(to + used, room - used, last > cpu ? "%s%d-%d" : "%s%d", used ? "," : "", cpu, last);
        cpu = last;
    }
}

static void pin(void)
{
    cpu_set_t set;
    if (!plan.cpus) return;
    parse_cpus(plan.cpus, &set);
    if (sched_setaffinity(0, sizeof set, &set)) fail("cannot run on CPUs %s", plan.cpus);
}

static void bring_up_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("cannot open a socket for the loopback interface");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request)) fail("cannot bring the loopback interface up");
    close(fd);
}

/* Only after this is the command's root another user outside, who may not get to the paths of the plan. */
static void become_root_inside(void)
{
    if (own_users() && (syscall(SYS_setresgid, 0, 0, 0) || syscall(SYS_setresuid, 0, 0, 0))) fail("cannot become root in the user namespace");
}

static void mount_overlay(void)
{
    char options[3 * PATH_MAX];
    int length = snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", plan.root, plan.scratch, plan.scratch);
    if (length < 0 || (size_t)length >= sizeof options) { errno = ENAMETOOLONG; fail("overlay on %s", plan.root); }
    /* Mounted over the scratch folder itself: one folder less to make and remove, and nobody outside sees it. */
    if (mount("overlay", plan.scratch, "overlay", MS_NOSUID | MS_NODEV, options)) fail("cannot mount an overlay of %s on %s", plan.root, plan.scratch);
    if (chdir(plan.scratch)) fail("cannot enter %s", plan.scratch);
}

/* By the root inside, because an overlay acts on its layers as whoever mounted it; so all paths are taken up before.
 * That user may not set the xattrs in which overlays keep notes, but may set others (userxattr). */
static void mount_overlay_as_root_inside(void)
{
    char options[128];
    int lower = open(plan.root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (lower < 0) fail("cannot open %s", plan.root);
    if (chdir(plan.scratch)) fail("cannot enter %s", plan.scratch);
    snprintf(options, sizeof options, "lowerdir=/proc/self/fd/%d,upperdir=upper,workdir=work,userxattr", lower);
    become_root_inside();
    if (mount("overlay", "root", "overlay", MS_NOSUID | MS_NODEV, options)) fail("cannot mount an overlay of %s in a user namespace", plan.root);
    if (chdir("root")) fail("cannot enter %s/root", plan.scratch);
    close(lower);
}

/* Adds to what the mount has: that may be locked, and a remount would have to repeat it. */
static int add_attributes(int folder, const char *path, unsigned how, uint64_t attributes)
{
    struct mount_attributes wanted = {.set = attributes};
    return (int)syscall(SYS_mount_setattr, folder, path, how, &wanted, sizeof wanted);
}

static void mount_bind_root(int read_only)
{
    /* Without what is mounted below: a read-only root would not make that read-only. */
    if (mount(plan.root, plan.root, NULL, MS_BIND, NULL) || chdir(plan.root)) fail("cannot bind the root %s", plan.root);
    if (add_attributes(AT_FDCWD, ".", 0, GIVES_NOTHING | (read_only ? READ_ONLY_ATTRIBUTE : 0))) fail("cannot make the root %s %s", plan.root, read_only ? "read-only" : "one without devices");
    become_root_inside();
}

static int new_file_system(const char *type, unsigned attributes)
{
    int context = (int)syscall(SYS_fsopen, type, OPEN_CLOEXEC), tree = -1;
    if (context >= 0 && !syscall(SYS_fsconfig, context, CREATE_COMMAND, NULL, NULL, 0))
        tree = (int)syscall(SYS_fsmount, context, OPEN_CLOEXEC, attributes);
    if (tree < 0) fail("cannot make a %s", type);
    close(context);
    return tree;
}

static int bind_source(const struct mount_step *step)
{
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, step->source, TREE_CLONE | TREE_RECURSIVE | O_CLOEXEC);
    if (tree < 0) fail("cannot bind %s", step->source);
    uint64_t attributes = GIVES_NOTHING | (step->kind == MOUNT_READ_ONLY_BIND ? READ_ONLY_ATTRIBUTE : 0);
    /* With all that is mounted below it: there must be no way to write. */
    if (step->kind != MOUNT_DEVICE_BIND && add_attributes(tree, "", ITSELF | TREE_RECURSIVE, attributes))
        fail("cannot make %s %s", step->source, step->kind == MOUNT_READ_ONLY_BIND ? "read-only" : "one without devices");
    return tree;
}

static int is_bind(enum mount_kind kind) { return kind == MOUNT_BIND || kind == MOUNT_READ_ONLY_BIND || kind == MOUNT_DEVICE_BIND; }

/* What comes from outside the new root is taken up before it is entered and put down after. */
static void take_up_trees(void)
{
    for (int i = 0; i < plan.mount_count; i++) {
        struct mount_step *step = &plan.mounts[i];
        if (is_bind(step->kind)) step->tree = bind_source(step);
        if (step->kind == MOUNT_PROC && own_users()) step->tree = new_file_system("proc", QUIET_ATTRIBUTES);
        if (step->kind == MOUNT_SYS && own_users()) step->tree = new_file_system("sysfs", QUIET_ATTRIBUTES | READ_ONLY_ATTRIBUTE);
    }
}

static int mount_making_folder(const char *source, const char *path, const char *type, unsigned long flags, const char *options)
{
    if (!mount(source, path, type, flags, options)) return 0;
    if (errno != ENOENT || mkdir(path, 0755)) return -1;
    return mount(source, path, type, flags, options);
}

static void make_read_only(const char *path)
{
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL)) {
        if (errno == ENOENT) return;
        fail("cannot bind %s", path);
    }
    if (mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) fail("cannot make %s read-only", path);
}

/* An empty folder that nobody can write to, to bind over others: a bind costs less than a file system of its own.
 * sysfs has some that stay empty for ever, because others are mounted there. */
static char empty_folder[PATH_MAX];

static void find_empty_folder(const char *sys)
{
    static const char *const candidates[] = {"fs/cgroup", "kernel/debug", "kernel/tracing", "fs/pstore"};
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates && !*empty_folder; i++)
        if (join_path(empty_folder, sizeof empty_folder, sys, candidates[i]) || access(empty_folder, F_OK)) *empty_folder = 0;
}

/* Only a path that is not there may be passed over, never one that could not be masked. */
static void mask_failed(const char *path)
{
    int error = errno;
    if (error == ENOENT && access(path, F_OK) && errno == ENOENT) return;
    errno = error;
    fail("cannot mask %s", path);
}

static void mask_folder(const char *path)
{
    int failed = *empty_folder ? mount(empty_folder, path, NULL, MS_BIND, NULL)
                               : mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,nr_inodes=1");
    if (failed) mask_failed(path);
}

/* A path that ends in '/' is a folder's; others are tried as a file's first. */
static void mask(const char *path)
{
    size_t length = strlen(path);
    if (path[length - 1] == '/') mask_folder(path);
    else if (!mount("/dev/null", path, NULL, MS_BIND, NULL)) return;
    else if (errno == ENOTDIR) mask_folder(path);
    else mask_failed(path);
}

static const struct { const char *name; unsigned major, minor; } devices[] = {
    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
};
#define DEVICES (sizeof devices / sizeof *devices)
static int host_devices[DEVICES];

/* A user namespace may not make device nodes, it may only bind those that are there. */
static void take_up_devices(void)
{
    for (size_t i = 0; i < DEVICES && own_users(); i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/%s", devices[i].name);
        host_devices[i] = (int)syscall(SYS_open_tree, AT_FDCWD, path, TREE_CLONE | O_CLOEXEC);
        if (host_devices[i] < 0) fail("cannot bind %s", path);
    }
}

static void put_down(int tree, const char *path)
{
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_FROM_EMPTY_PATH)) fail("cannot mount on %s", path);
    close(tree);
}

static void put_down_making_folder(int tree, const char *path)
{
    if (access(path, F_OK) && errno == ENOENT && mkdir(path, 0755)) fail("cannot make %s", path);
    put_down(tree, path);
}

static void make_device(size_t i, const char *folder)
{
    char path[PATH_MAX];
    if (join_path(path, sizeof path, folder, devices[i].name)) fail("%s", folder);
    if (!own_users()) {
        if (mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor))) fail("cannot make %s", path);
        return;
    }
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) fail("cannot make %s", path);
    close(fd);
    put_down(host_devices[i], path);
}

static void mount_dev(const char *folder)
{
    static const char *const links[][2] = {{"/proc/self/fd", "fd"}, {"fd/0", "stdin"}, {"fd/1", "stdout"}, {"fd/2", "stderr"}};
    char path[PATH_MAX];
    if (mount_making_folder("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64m")) fail("cannot mount %s", folder);
    mode_t before = umask(0);
    for (size_t i = 0; i < DEVICES; i++) make_device(i, folder);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (join_path(path, sizeof path, folder, links[i][1]) || symlink(links[i][0], path)) fail("cannot make %s", path);
    if (join_path(path, sizeof path, folder, "shm") || mkdir(path, 01777)) fail("cannot make %s", path);
    umask(before);
}

static void mount_tmpfs(const struct mount_step *step)
{
    char options[64] = "mode=1777";
    if (step->size) snprintf(options, sizeof options, "mode=1777,size=%ld", step->size);
    if (mount_making_folder("tmpfs", step->path, "tmpfs", MS_NOSUID | MS_NODEV, options)) fail("cannot mount a tmpfs on %s", step->path);
}

static void mount_step(const struct mount_step *step)
{
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (step->tree >= 0) {
        if (step->source) put_down(step->tree, step->path);
        else put_down_making_folder(step->tree, step->path);
        if (step->kind == MOUNT_SYS) find_empty_folder(step->path);
        return;
    }
    switch (step->kind) {
    case MOUNT_PROC:
        if (mount_making_folder("proc", step->path, "proc", quiet, NULL)) fail("cannot mount proc on %s", step->path);
        break;
    case MOUNT_SYS:
        if (mount_making_folder("sysfs", step->path, "sysfs", quiet | MS_RDONLY, NULL)) fail("cannot mount sysfs on %s", step->path);
        find_empty_folder(step->path);
        break;
    case MOUNT_TMPFS: mount_tmpfs(step); break;
    case MOUNT_BIND:
    case MOUNT_READ_ONLY_BIND:
    case MOUNT_DEVICE_BIND: break; /* they have a tree */
    case MOUNT_DEV: mount_dev(step->path); break;
    case MOUNT_MASK: mask(step->path); break;
    case MOUNT_READ_ONLY: make_read_only(step->path); break;
    }
}

/* The null device that a command was started with is the host's: root could change its mode for everybody, through
 * the open descriptor. */
static void reopen_null(void)
{
    struct stat status;
    for (int fd = 0; fd < 3; fd++) {
        if (fstat(fd, &status) || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3)) continue;
        int own = open("/dev/null", (fcntl(fd, F_GETFL) & O_ACCMODE) | O_CLOEXEC);
        if (own < 0 && errno == ENOENT) continue; /* a root without devices */
        if (own < 0 || dup2(own, fd) < 0) fail("cannot open /dev/null");
        close(own);
    }
}

static void enter_root(void)
{
    if (plan.root_kind == ROOT_HOST) { become_root_inside(); return; }
    if (plan.root_kind == ROOT_CHROOT) {
        if (chroot(plan.root) || chdir("/")) fail("cannot change the root to %s", plan.root);
        become_root_inside();
        return;
    }
    /* Without this, mounts made here would show in the host's own tree where that is shared (systemd makes it so). */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("cannot make the mounts private");
    take_up_trees();
    take_up_devices();
    if (plan.root_kind == ROOT_OVERLAY && own_users()) mount_overlay_as_root_inside();
    else if (plan.root_kind == ROOT_OVERLAY) mount_overlay();
    else mount_bind_root(plan.root_kind == ROOT_READ_ONLY_BIND);
    /* Stacks the old root on the new one at the same place, so that no folder is needed to put it. */
    if (syscall(SYS_pivot_root, ".", ".")) fail("cannot pivot into the new root");
    if (umount2(".", MNT_DETACH) || chdir("/")) fail("cannot detach the old root");
    for (int i = 0; i < plan.mount_count; i++) mount_step(&plan.mounts[i]);
    reopen_null();
}

/* Before the user is changed: that takes the capability away that this needs. */
static void bound_capabilities(void)
{
    for (int capability = 0; capability < 64; capability++) {
        if (plan.kept_capabilities >> capability & 1 || !prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)) continue;
        if (errno == EINVAL) break; /* past the last one that this kernel knows */
        fail("cannot drop capability %d", capability);
    }
}

static void drop_capabilities(void)
{
    struct capability_header header = {.version = CAPABILITY_VERSION_3};
    struct capability_data data[2] = {{0}};
    /* A user other than root has none after exec, whatever it has before. */
    uint64_t kept = plan.uid > 0 ? 0 : plan.kept_capabilities;
    for (int i = 0; i < 2; i++) data[i].effective = data[i].permitted = (uint32_t)(kept >> 32 * i);
    if (syscall(SYS_capset, &header, data)) fail("cannot set the capabilities");
}

static void change_user(void)
{
    if (plan.gid >= 0 && (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid))) fail("cannot become group %ld", plan.gid);
    if (plan.uid >= 0 && syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid)) fail("cannot become user %ld", plan.uid);
}

/* Read by the parent: in the child the descriptor may have had to give way to the one for readiness. */
static struct filter_program filter;

static void load_filter(void)
{
    static struct filter_instruction instructions[MAX_FILTER];
    if (plan.seccomp < 0) return;
    ssize_t length = pread(plan.seccomp, instructions, sizeof instructions, 0);
    if (length <= 0 || (size_t)length % sizeof *instructions) { if (length >= 0) errno = EINVAL; die("no seccomp program on descriptor %d", plan.seccomp); }
    filter = (struct filter_program){.length = (unsigned short)((size_t)length / sizeof *instructions), .instructions = instructions};
}

static void install_filter(void)
{
    if (plan.seccomp < 0) return;
    shared->seccomp = SECCOMP_FILTER_MODE;
    /* Kernels before 5.16 would slow speculation down for whoever has a filter: mitigations are the host's to choose,
     * and the same for all that is compared. */
    if (!syscall(SYS_seccomp, SECCOMP_INSTALL, SECCOMP_SPECULATION_AS_IS, &filter)) return;
    if (errno != EINVAL || syscall(SYS_seccomp, SECCOMP_INSTALL, 0, &filter)) fail("cannot install the seccomp program");
}

/* The caller's keys are not the command's. EPERM: inside another container, where nobody gets at keys. */
static void leave_keyring(void)
{
    if (plan.new_keyring && syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EPERM) fail("cannot make a session keyring");
}

static void forbid_core(void)
{
    struct rlimit none = {0, 0};
    if (plan.no_core && setrlimit(RLIMIT_CORE, &none)) fail("cannot forbid core files");
}

static void read_back(void)
{
    struct capability_header header = {.version = CAPABILITY_VERSION_3};
    struct capability_data data[2] = {{0}};
    describe_cpus(shared->cpus, sizeof shared->cpus);
    if (!syscall(SYS_capget, &header, data)) shared->capabilities = data[0].effective | (uint64_t)data[1].effective << 32;
    shared->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

/* Moves a descriptor of ours away from the number that the command is to find as its ready descriptor. */
static int out_of_the_way(int descriptor)
{
    if (descriptor < 0 || descriptor != plan.ready) return descriptor;
    int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, plan.ready + 1);
    if (moved < 0) fail("cannot move descriptor %d", descriptor);
    return moved;
}

static void pass_ready_descriptor(int ready_end)
{
    static char variable[64];
    if (plan.ready < 0) return;
    if (ready_end == plan.ready ? fcntl(ready_end, F_SETFD, 0) < 0 : dup2(ready_end, plan.ready) < 0) fail("cannot pass descriptor %d", plan.ready);
    snprintf(variable, sizeof variable, "BENCHBOX_READY=%d", plan.ready);
    plan.environment[plan.environment_count++] = variable;
}

__attribute__((noreturn)) static void execute(void)
{
    extern char **environ;
    plan.environment[plan.environment_count] = NULL;
    if (plan.keep_environment) {
        for (int i = 0; i < plan.environment_count; i++) putenv((char *)plan.environment[i]);
    } else {
        environ = (char **)plan.environment;
    }
    shared->isolated_ns = now_ns();
    execvp(plan.command[0], plan.command);
    fail("cannot execute %s", plan.command[0]);
}

/* Nobody tells a child that its parent ended before it asked to be told: then it is the only one that holds the pipe. */
static void check_launcher(int exec_end)
{
    struct pollfd watched = {.fd = exec_end};
    if (poll(&watched, 1, 0) > 0) fail("the launcher has gone");
}

__attribute__((noreturn, noinline)) static void run_child(const int exec_pipe[2], int ready_end, int go, const sigset_t *signals)
{
    char byte;
    shared->started_ns = now_ns();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    close(exec_pipe[0]);
    int exec_end = out_of_the_way(exec_pipe[1]);
    if (go >= 0) {
        if (read(go, &byte, 1) != 1) fail("the launcher has gone");
    } else {
        const char *refused = join_cgroups("0");
        if (refused) fail("cannot join the cgroup %s", refused);
    }
    pin();
    if (plan.new_cgroup_namespace && unshare(CLONE_NEWCGROUP)) fail("cannot make a cgroup namespace");
    if (plan.hostname && sethostname(plan.hostname, strlen(plan.hostname))) fail("cannot set the host name");
    if (plan.network >= 0 && setns(plan.network, CLONE_NEWNET)) fail("cannot join the network namespace of descriptor %d", plan.network);
    if (plan.loopback) bring_up_loopback();
    enter_root();
    if (chdir(plan.working_folder)) fail("cannot enter %s", plan.working_folder);
    pass_ready_descriptor(ready_end);
    /* One descriptor that stays open could lead out of the new root. */
    if (syscall(SYS_close_range, plan.ready > 2 ? (unsigned)plan.ready + 1 : 3u, ~0u, RANGE_CLOEXEC)) fail("cannot close descriptors");
    if (plan.ready > 3 && syscall(SYS_close_range, 3u, (unsigned)plan.ready - 1, RANGE_CLOEXEC)) fail("cannot close descriptors");
    leave_keyring();
    forbid_core();
    if (plan.drop_capabilities) bound_capabilities();
    change_user();
    if (plan.drop_capabilities) drop_capabilities();
    if (plan.no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("cannot set no_new_privs");
    /* A change of user clears it, so it comes after. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) fail("cannot tie the command to the launcher");
    check_launcher(exec_end);
    sigprocmask(SIG_SETMASK, signals, NULL);
    read_back();
    install_filter();
    execute();
}

/* ---- the parent: clone, watch, reap ---- */

/* What the kernel holds, not what was written to it. */
static void read_users(const char *folder)
{
    char path[PATH_MAX], content[64] = "";
    unsigned inside, outside, count;
    if (join_path(path, sizeof path, folder, "uid_map")) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, content, sizeof content - 1) > 0 && sscanf(content, "%u %u %u", &inside, &outside, &count) == 3)
        snprintf(seen.users, sizeof seen.users, "%u %u %u", inside, outside, count);
    close(fd);
}

static void write_id_maps(pid_t pid)
{
    char folder[64], line[128], number[32];
    snprintf(folder, sizeof folder, "/proc/%d", pid);
    snprintf(number, sizeof number, "%d", pid);
    const char *refused = join_cgroups(number);
    if (refused) die("cannot put the command into the cgroup %s", refused);
    snprintf(line, sizeof line, "%s %s %s", plan.uid_map.inside, plan.uid_map.outside, plan.uid_map.count);
    if (put(folder, "uid_map", line)) die("cannot map users (%s)", line);
    /* Without privileges the kernel takes a group map only once setgroups is denied, user_namespaces(7). */
    if (geteuid() != 0) put(folder, "setgroups", "deny");
    snprintf(line, sizeof line, "%s %s %s", plan.gid_map.inside, plan.gid_map.outside, plan.gid_map.count);
    if (put(folder, "gid_map", line)) die("cannot map groups (%s)", line);
    read_users(folder);
}

/* clone3(2) without a function of its own: a child that borrows its parent's memory (CLONE_VM) runs on the parent's
 * stack as well, and would overwrite the return address of any function that has cloned. Inlined into a function that
 * stays on the stack below, there is none. */
__attribute__((always_inline)) static inline long raw_clone3(struct clone3_args *arguments)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_clone3), "D"(arguments), "S"(sizeof *arguments) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = SYS_clone3;
    register long first __asm__("x0") = (long)arguments;
    register long second __asm__("x1") = sizeof *arguments;
    __asm__ volatile("svc 0" : "+r"(first) : "r"(number), "r"(second) : "memory");
    return first;
#else
    arguments->flags &= ~(uint64_t)(CLONE_VM | CLONE_VFORK);
    long result = syscall(SYS_clone3, arguments, sizeof *arguments);
    return result < 0 ? -errno : result;
#endif
}

static uint64_t clone_flags(int cgroup)
{
    /* The child borrows this process's memory until it executes (as vfork(2) does): nothing is copied, and the CPU is
     * its own at once. A user namespace needs us awake meanwhile, to write its maps. */
#ifdef __SANITIZE_ADDRESS__
    uint64_t borrowed = 0; /* what the child leaves on the stack would be taken for the parent's */
#else
    uint64_t borrowed = own_users() ? 0 : CLONE_VM | CLONE_VFORK;
#endif
    return plan.namespaces | CLONE_PIDFD | borrowed | (cgroup >= 0 ? INTO_CGROUP : 0);
}

static void note_end(int signal_number) { (void)signal_number; asked_to_end = 1; }

static void catch_signals(sigset_t *before)
{
    static const int caught[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = note_end};
    sigset_t blocked;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
        sigaction(caught[i], &action, NULL);
        sigaddset(&blocked, caught[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked, before);
}

static void note_ready(int *fd)
{
    char byte;
    ssize_t length = read(*fd, &byte, 1);
    if (length == 1 && !seen.ready_ns) {
        seen.ready_ns = now_ns();
        if (plan.announce) {
            char line[64];
            int size = snprintf(line, sizeof line, "ready %llu\n", (unsigned long long)seen.ready_ns);
            write_all(plan.report, line, (size_t)size);
        }
    }
    /* One byte is the protocol; what comes after it nobody reads. */
    *fd = -1;
}

static int time_left_ms(void)
{
    if (!plan.deadline_ms) return -1;
    uint64_t spent_ms = (now_ns() - seen.requested_ns) / 1000000;
    return spent_ms >= (uint64_t)plan.deadline_ms ? 0 : (int)((uint64_t)plan.deadline_ms - spent_ms);
}

static int wait_for_event(struct pollfd *watched, nfds_t count, const sigset_t *signals)
{
    int left_ms = time_left_ms();
    struct timespec left = {.tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000L};
    return ppoll(watched, count, left_ms < 0 ? NULL : &left, signals);
}

/* Watches until the command has ended. The exec pipe is looked at first and the end last, so that stages which
 * happen between two looks still get stamps in the order in which they must have happened. */
static void watch(pid_t pid, int pidfd, int exec_end, int ready_end, const sigset_t *signals)
{
    struct pollfd watched[] = {{exec_end, POLLIN, 0}, {ready_end, POLLIN, 0}, {pidfd, POLLIN, 0}};
    int killed = 0;
    for (;;) {
        int events = wait_for_event(watched, 3, signals);
        if (events < 0 && errno != EINTR) die("cannot wait for the command");
        if (!killed && (asked_to_end || events == 0)) {
            seen.timed_out = !asked_to_end;
            killed = 1;
            plan.deadline_ms = 0;
            kill(pid, SIGKILL);
        }
        if (events <= 0) continue;
        if (watched[0].revents) {
            if (!shared->failed) seen.exec_ns = now_ns();
            watched[0].fd = -1;
        }
        if (watched[1].revents) note_ready(&watched[1].fd);
        if (!watched[2].revents) continue;
        if (watched[1].fd >= 0 && poll(&watched[1], 1, 0) == 1) note_ready(&watched[1].fd);
        if (wait4(pid, &seen.status, 0, &seen.usage) != pid) die("cannot reap the command");
        unfinished = 0;
        seen.exited_ns = now_ns();
        return;
    }
}

static void give_to_root_inside(const char *path)
{
    if (own_users() && chown(path, (uid_t)strtoul(plan.uid_map.outside, NULL, 10), (gid_t)strtoul(plan.gid_map.outside, NULL, 10)))
        die("cannot give %s to the root of the user namespace", path);
}

static void make_scratch(void)
{
    static const char *const folders[] = {"upper", "work", "root"};
    char path[PATH_MAX];
    if (plan.root_kind != ROOT_OVERLAY) return;
    /* What is made set-user-id inside is nobody's outside to find: only who makes the layers gets this far. */
    if (mkdir(plan.scratch, 0700)) die("cannot make %s", plan.scratch);
    made_scratch = 1;
    give_to_root_inside(plan.scratch);
    for (int i = 0; i < (own_users() ? 3 : 2); i++) {
        if (join_path(path, sizeof path, plan.scratch, folders[i]) || mkdir(path, 0755)) die("cannot make %s", path);
        give_to_root_inside(path);
    }
}

static void start_and_watch(void)
{
    int exec_pipe[2], ready_pipe[2] = {-1, -1}, go_pipe[2] = {-1, -1}, pidfd = -1;
    int separate_user = own_users();
    sigset_t signals;
    catch_signals(&signals);
    make_cgroups();
    make_scratch();
    int cgroup = unified_cgroup();
    seen.cgroups_ns = now_ns();
    if (pipe2(exec_pipe, O_CLOEXEC) || (plan.ready >= 0 && pipe2(ready_pipe, O_CLOEXEC)) || (separate_user && pipe2(go_pipe, O_CLOEXEC))) die("cannot make a pipe");
    struct clone3_args arguments = {
        .flags = clone_flags(cgroup),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };
    long pid = raw_clone3(&arguments);
    if (pid == 0) run_child(exec_pipe, ready_pipe[1], go_pipe[0], &signals);
    if (pid < 0) { errno = (int)-pid; die("cannot clone"); }
    unfinished = (pid_t)pid;
    close(exec_pipe[1]);
    if (plan.ready >= 0) close(ready_pipe[1]);
    if (cgroup >= 0) close(cgroup);
    if (separate_user) {
        write_id_maps((pid_t)pid);
        if (write(go_pipe[1], "", 1) != 1) die("cannot let the command go");
        close(go_pipe[1]);
    }
    watch((pid_t)pid, pidfd, exec_pipe[0], ready_pipe[0], &signals);
}

/* ---- the end: account, remove, report ---- */

static void report_end(void)
{
    if (seen.timed_out) report("end timeout %ld\n", seen.exited_ns ? (long)((seen.exited_ns - seen.requested_ns) / 1000000) : 0L);
    else if (asked_to_end && WIFSIGNALED(seen.status) && WTERMSIG(seen.status) == SIGKILL) report("end killed\n");
    else if (shared->failed) report("end error %s: %s\n", shared->what, strerror(shared->error));
    else if (WIFSIGNALED(seen.status)) report("end signal %d\n", WTERMSIG(seen.status));
    else report("end exit %d\n", WEXITSTATUS(seen.status));
}

/* Those that the kernel granted: clone3 and unshare refuse as a whole. */
static void report_namespaces(void)
{
    static const struct { unsigned long long flag; const char *name; } kinds[] = {
        {CLONE_NEWIPC, "ipc"}, {CLONE_NEWNS, "mount"}, {CLONE_NEWNET, "net"}, {CLONE_NEWPID, "pid"}, {CLONE_NEWUSER, "user"}, {CLONE_NEWUTS, "uts"},
    };
    if (!shared->isolated_ns) return;
    report("applied namespaces%s", plan.new_cgroup_namespace ? " cgroup" : "");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (plan.namespaces & kinds[i].flag || (plan.network >= 0 && kinds[i].flag == CLONE_NEWNET)) report(" %s", kinds[i].name);
    report("\n");
}

static void report_all(void)
{
    report("requested %llu\n", (unsigned long long)seen.requested_ns);
    report_stage("cgroups", plan.cgroup_count ? seen.cgroups_ns : 0);
    report_stage("started", shared->started_ns);
    report_stage("isolated", plan.namespaces ? shared->isolated_ns : 0);
    report_stage("exec", seen.exec_ns);
    report_stage("ready", seen.ready_ns);
    report_stage("exited", seen.exited_ns);
    report_stage("cleaned", seen.cleaned_ns);
    report("applied cpus %s\napplied capabilities %llx\napplied no_new_privs %d\napplied seccomp %d\n", shared->cpus,
           (unsigned long long)shared->capabilities, shared->no_new_privs, shared->seccomp);
    report("applied read_blocks %ld\napplied voluntary_switches %ld\napplied involuntary_switches %ld\n",
           seen.usage.ru_inblock, seen.usage.ru_nvcsw, seen.usage.ru_nivcsw);
    report_namespaces();
    if (*seen.users) report("applied users %s\n", seen.users);
    report_end();
    write_all(plan.report, report_text, report_length);
}

/* Ends as the command ended: with its status, or by its signal. */
__attribute__((noreturn)) static void end_alike(void)
{
    if (shared->failed) {
        fprintf(stderr, "launch: %s: %s\n", shared->what, strerror(shared->error));
        int at_exec = strncmp(shared->what, "cannot execute", 14) == 0;
        exit(!at_exec ? STATUS_FAILED : shared->error == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_EXECUTE);
    }
    if (!WIFSIGNALED(seen.status)) exit(WEXITSTATUS(seen.status));
    struct rlimit no_core = {0, 0};
    sigset_t all;
    setrlimit(RLIMIT_CORE, &no_core);
    signal(WTERMSIG(seen.status), SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    raise(WTERMSIG(seen.status));
    exit(128 + WTERMSIG(seen.status));
}

/* ---- arguments ---- */

static const char help[] =
    "usage: launch [OPTION...] [--] COMMAND [ARGUMENT...]\n"
    "\n"
    "Starts COMMAND in an environment that the options describe, removes what it made, ends as COMMAND ended.\n"
    "Without options COMMAND runs as it would from a shell. Exit status 125: launch itself failed; 126, 127: COMMAND\n"
    "cannot be executed, is not there.\n"
    "\n"
    "cgroups, in the order in which they are made and joined:\n"
    "  --cgroup DIR             make the v1 cgroup DIR and join it\n"
    "  --cgroup2 DIR            make the v2 cgroup DIR; COMMAND is born in it\n"
    "  --cgroup-set FILE VALUE  write VALUE to FILE of the cgroup named last, before anything joins\n"
    "  --cgroup-try FILE VALUE  the same; no error if there is no such FILE\n"
    "  --cgroup-read FILE       put FILE of the cgroup named last into the report, after the end\n"
    "  --cpus LIST              run on these CPUs only (0-2,5)\n"
    "\n"
    "namespaces:\n"
    "  --unshare-pid, --unshare-mount, --unshare-uts, --unshare-ipc, --unshare-net, --unshare-cgroup, --unshare-user\n"
    "  --unshare-all            all of these but user\n"
    "  --uid-map IN OUT COUNT, --gid-map IN OUT COUNT   with --unshare-user\n"
    "  --hostname NAME          with --unshare-uts\n"
    "  --loopback               bring lo up; with --unshare-net\n"
    "  --join-net FD            enter the network namespace of FD in place of a new one\n"
    "\n"
    "root, one of:\n"
    "  --chroot DIR             change the root only\n"
    "  --root-bind DIR, --root-ro-bind DIR              DIR itself, writable or not; with --unshare-mount\n"
    "  --root-overlay DIR SCRATCH                       DIR below a writable layer in SCRATCH, which is made and removed\n"
    "mounts in the new root, in the order given (paths are inside it):\n"
    "  --proc PATH, --sys PATH, --dev PATH, --tmpfs PATH\n"
    "  --size BYTES             the --tmpfs that follows takes so much at most\n"
    "  --bind SOURCE PATH, --ro-bind SOURCE PATH        without set-user-id and devices; all below SOURCE as well\n"
    "  --dev-bind SOURCE PATH   the same, with both\n"
    "  --mask PATH              hide a file or folder (PATH/ saves a look which); no error if there is none\n"
    "  --ro PATH                make what is mounted there read-only; no error if there is none\n"
    "\n"
    "privileges:\n"
    "  --uid N, --gid N         run as this user and group\n"
    "  --cap-keep LIST          drop all capabilities but these numbers (0,1,3); \"\" drops all, as --uid does\n"
    "  --no-new-privs           no program may gain privileges\n"
    "  --new-keyring            start with an empty session keyring\n"
    "  --no-core                write no core files\n"
    "  --seccomp FD             install the classic BPF program (struct sock_filter[]) read from FD\n"
    "\n"
    "command:\n"
    "  --chdir DIR              start there (inside the root; default /)\n"
    "  --clearenv, --setenv NAME=VALUE\n"
    "  --ready FD               COMMAND finds FD open, and its number in BENCHBOX_READY, to say that it is ready\n"
    "  --deadline MS            kill it after MS milliseconds\n"
    "  --die-with-parent        end when whoever started launch ends\n"
    "\n"
    "report:\n"
    "  --report FD              write stamps (CLOCK_MONOTONIC, ns), read files and the end to FD, when all is over\n"
    "  --announce               write `ready NS` to FD at once, too\n"
    "  --gate FD                begin when FD is at its end: several that wait for one pipe to be closed begin together\n"
    "\n"
    "  --channel-latency N      measure nothing but the channel: N round trips over a pipe, median ns one way\n"
    "\n"
    "Example, a shell in a container:\n"
    "  launch --unshare-all --root-overlay /srv/root /tmp/layer --proc /proc --dev /dev --tmpfs /tmp \\\n"
    "         --cap-keep \"\" --no-new-privs -- /bin/sh\n";

__attribute__((noreturn)) static void misuse(const char *format, const char *what)
{
    fputs("launch: ", stderr);
    fprintf(stderr, format, what);
    fputs("\nTry 'launch --help'.\n", stderr);
    exit(STATUS_FAILED);
}

static char **arguments_left;

static const char *next_argument(const char *option)
{
    if (!*arguments_left) misuse("%s needs another argument", option);
    return *arguments_left++;
}

static long number_argument(const char *option, long most)
{
    const char *text = next_argument(option);
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < 0 || value > most) misuse("'%s' is no number that fits here", text);
    return value;
}

static void add_cgroup(const char *option, int version)
{
    if (plan.cgroup_count == MAX_CGROUPS) misuse("%s: too many", option);
    plan.cgroups[plan.cgroup_count++] = (struct cgroup){next_argument(option), version};
}

static int last_cgroup(const char *option)
{
    if (!plan.cgroup_count) misuse("%s needs a --cgroup before it", option);
    return plan.cgroup_count - 1;
}

static void add_setting(const char *option, int optional)
{
    int cgroup = last_cgroup(option);
    if (plan.setting_count == MAX_SETTINGS) misuse("%s: too many", option);
    const char *file = next_argument(option);
    plan.settings[plan.setting_count++] = (struct setting){cgroup, file, next_argument(option), optional};
}

static void add_read(const char *option)
{
    int cgroup = last_cgroup(option);
    if (plan.read_count == MAX_READS) misuse("%s: too many", option);
    plan.reads[plan.read_count++] = (struct cgroup_file){cgroup, next_argument(option)};
}

static void add_mount(const char *option, enum mount_kind kind)
{
    if (plan.mount_count == MAX_MOUNTS) misuse("%s: too many", option);
    const char *source = is_bind(kind) ? next_argument(option) : NULL;
    const char *path = next_argument(option);
    if (*path != '/') misuse("'%s' is no path inside the root: it must begin with '/'", path);
    plan.mounts[plan.mount_count++] = (struct mount_step){kind, source, path, -1, kind == MOUNT_TMPFS ? plan.tmpfs_size : 0};
    plan.tmpfs_size = 0;
}

static void set_root(const char *option, enum root_kind kind)
{
    if (plan.root_kind != ROOT_HOST) misuse("%s: there can be only one root", option);
    plan.root_kind = kind;
    plan.root = next_argument(option);
    if (kind == ROOT_OVERLAY) plan.scratch = next_argument(option);
    if (kind == ROOT_OVERLAY && (strpbrk(plan.root, ",:\\") || strpbrk(plan.scratch, ",:\\"))) misuse("%s: a path with ',', ':' or '\\' cannot be an overlay layer", option);
}

static const char *id_argument(const char *option)
{
    const char *text = next_argument(option);
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 10) misuse("'%s' is no user or group number", text);
    return text;
}

static void set_cpus(const char *option)
{
    cpu_set_t set;
    plan.cpus = next_argument(option);
    if (!parse_cpus(plan.cpus, &set)) misuse("'%s' is no list of CPUs", plan.cpus);
}

static void set_map(const char *option, struct id_map *map)
{
    map->inside = id_argument(option);
    map->outside = id_argument(option);
    map->count = id_argument(option);
}

static void keep_capabilities(const char *option)
{
    const char *text = next_argument(option);
    plan.drop_capabilities = 1;
    while (*text) {
        char *end;
        long capability = strtol(text, &end, 10);
        if (end == text || capability < 0 || capability > 63 || (*end && *end != ',')) misuse("'%s' is no list of capability numbers", text);
        plan.kept_capabilities |= 1ULL << capability;
        text = *end ? end + 1 : end;
    }
}

static void add_variable(const char *option)
{
    const char *variable = next_argument(option);
    if (!strchr(variable, '=') || *variable == '=') misuse("'%s' is not NAME=VALUE", variable);
    if (plan.environment_count >= MAX_ENVIRONMENT - 1) misuse("%s: too many", option);
    plan.environment[plan.environment_count++] = variable;
}

static const struct { const char *name; unsigned long long flag; } namespace_options[] = {
    {"--unshare-pid", CLONE_NEWPID}, {"--unshare-mount", CLONE_NEWNS}, {"--unshare-uts", CLONE_NEWUTS},
    {"--unshare-ipc", CLONE_NEWIPC}, {"--unshare-net", CLONE_NEWNET}, {"--unshare-user", CLONE_NEWUSER},
    {"--unshare-all", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET},
};
static const struct { const char *name; enum mount_kind kind; } mount_options[] = {
    {"--proc", MOUNT_PROC}, {"--sys", MOUNT_SYS}, {"--dev", MOUNT_DEV}, {"--tmpfs", MOUNT_TMPFS}, {"--bind", MOUNT_BIND},
    {"--ro-bind", MOUNT_READ_ONLY_BIND}, {"--dev-bind", MOUNT_DEVICE_BIND},
    {"--mask", MOUNT_MASK}, {"--ro", MOUNT_READ_ONLY},
};
static const struct { const char *name; enum root_kind kind; } root_options[] = {
    {"--chroot", ROOT_CHROOT}, {"--root-bind", ROOT_BIND}, {"--root-ro-bind", ROOT_READ_ONLY_BIND}, {"--root-overlay", ROOT_OVERLAY},
};
static const struct { const char *name; int *flag; } flag_options[] = {
    {"--unshare-cgroup", &plan.new_cgroup_namespace}, {"--loopback", &plan.loopback}, {"--no-new-privs", &plan.no_new_privs},
    {"--die-with-parent", &plan.die_with_parent}, {"--announce", &plan.announce},
    {"--new-keyring", &plan.new_keyring}, {"--no-core", &plan.no_core},
};
#define COUNT(table) (sizeof(table) / sizeof *(table))

static int parse_table_option(const char *option)
{
    for (size_t i = 0; i < COUNT(flag_options); i++)
        if (!strcmp(option, flag_options[i].name)) return *flag_options[i].flag = 1;
    for (size_t i = 0; i < COUNT(namespace_options); i++)
        if (!strcmp(option, namespace_options[i].name)) {
            plan.namespaces |= namespace_options[i].flag;
            if (!strcmp(option, "--unshare-all")) plan.new_cgroup_namespace = 1;
            return 1;
        }
    for (size_t i = 0; i < COUNT(mount_options); i++)
        if (!strcmp(option, mount_options[i].name)) { add_mount(option, mount_options[i].kind); return 1; }
    for (size_t i = 0; i < COUNT(root_options); i++)
        if (!strcmp(option, root_options[i].name)) { set_root(option, root_options[i].kind); return 1; }
    return 0;
}

static void parse_option(const char *option)
{
    if (parse_table_option(option)) return;
    if (!strcmp(option, "--cgroup")) add_cgroup(option, 1);
    else if (!strcmp(option, "--cgroup2")) add_cgroup(option, 2);
    else if (!strcmp(option, "--cgroup-set")) add_setting(option, 0);
    else if (!strcmp(option, "--cgroup-try")) add_setting(option, 1);
    else if (!strcmp(option, "--cgroup-read")) add_read(option);
    else if (!strcmp(option, "--cpus")) set_cpus(option);
    else if (!strcmp(option, "--uid-map")) set_map(option, &plan.uid_map);
    else if (!strcmp(option, "--gid-map")) set_map(option, &plan.gid_map);
    else if (!strcmp(option, "--hostname")) plan.hostname = next_argument(option);
    else if (!strcmp(option, "--uid")) plan.uid = number_argument(option, INT_MAX);
    else if (!strcmp(option, "--gid")) plan.gid = number_argument(option, INT_MAX);
    else if (!strcmp(option, "--cap-keep")) keep_capabilities(option);
    else if (!strcmp(option, "--size")) plan.tmpfs_size = number_argument(option, LONG_MAX);
    else if (!strcmp(option, "--seccomp")) plan.seccomp = (int)number_argument(option, INT_MAX);
    else if (!strcmp(option, "--chdir")) plan.working_folder = next_argument(option);
    else if (!strcmp(option, "--clearenv")) plan.keep_environment = 0;
    else if (!strcmp(option, "--setenv")) add_variable(option);
    else if (!strcmp(option, "--ready")) plan.ready = (int)number_argument(option, 1000);
    else if (!strcmp(option, "--deadline")) plan.deadline_ms = number_argument(option, INT_MAX);
    else if (!strcmp(option, "--report")) plan.report = (int)number_argument(option, INT_MAX);
    else if (!strcmp(option, "--join-net")) plan.network = (int)number_argument(option, INT_MAX);
    else if (!strcmp(option, "--gate")) plan.gate = (int)number_argument(option, INT_MAX);
    else misuse("unknown option '%s'", option);
}

static void check_plan(void)
{
    int own_mounts = plan.root_kind > ROOT_CHROOT;
    if (!*plan.command) misuse("%s", "no command is given");
    if (own_mounts && !(plan.namespaces & CLONE_NEWNS)) misuse("%s", "this root needs --unshare-mount");
    if (plan.mount_count && !own_mounts) misuse("%s", "mounts need --root-bind, --root-ro-bind or --root-overlay");
    if (plan.hostname && !(plan.namespaces & CLONE_NEWUTS)) misuse("%s", "--hostname needs --unshare-uts");
    if (plan.loopback && !(plan.namespaces & CLONE_NEWNET)) misuse("%s", "--loopback needs --unshare-net");
    if (plan.network >= 0 && (plan.namespaces & (CLONE_NEWNET | CLONE_NEWUSER))) misuse("%s", "--join-net goes with neither --unshare-net nor --unshare-user");
    if ((plan.namespaces & CLONE_NEWUSER) && (!plan.uid_map.count || !plan.gid_map.count)) misuse("%s", "--unshare-user needs --uid-map and --gid-map");
    if (plan.ready >= 0 && plan.ready < 3) misuse("%s", "--ready needs a descriptor above 2");
    if (plan.announce && plan.report < 0) misuse("%s", "--announce needs --report");
}

/* Waits until nobody holds the other end of the gate any more. What was asked for only begins then: the request is
 * stamped anew. */
static void wait_at_gate(void)
{
    char byte;
    ssize_t length;
    while ((length = read(plan.gate, &byte, 1)) > 0 || (length < 0 && errno == EINTR)) { }
    seen.requested_ns = now_ns();
    if (length < 0) die("cannot wait at the gate, descriptor %d", plan.gate);
    close(plan.gate);
}

/* ---- the other two things this program can be ---- */

static int by_value(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Half of the median round trip over a pair of pipes to a process on --cpus: a bound for how late the ready byte is
 * stamped. */
static int measure_channel(long trips)
{
    int there[2], back[2];
    char byte = 0;
    uint64_t *elapsed_ns = calloc((size_t)trips, sizeof *elapsed_ns);
    if (!elapsed_ns || pipe2(there, O_CLOEXEC) || pipe2(back, O_CLOEXEC)) die("cannot make a pipe");
    pid_t pid = fork();
    if (pid < 0) die("cannot fork");
    if (pid == 0) {
        cpu_set_t set;
        if (plan.cpus) { parse_cpus(plan.cpus, &set); sched_setaffinity(0, sizeof set, &set); }
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) break;
        _exit(0);
    }
    for (long i = 0; i < trips; i++) {
        uint64_t sent_ns = now_ns();
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("the channel broke");
        elapsed_ns[i] = now_ns() - sent_ns;
    }
    close(there[1]);
    waitpid(pid, NULL, 0);
    qsort(elapsed_ns, (size_t)trips, sizeof *elapsed_ns, by_value);
    printf("%llu\n", (unsigned long long)elapsed_ns[trips / 2] / 2);
    return 0;
}

__attribute__((noreturn)) static void become_emulator(char **argv)
{
    char path[PATH_MAX];
    char *joined = getenv("BENCHBOX_JOIN");
    plan.cpus = getenv("BENCHBOX_CPUS");
    for (char *file = joined ? strtok(joined, ":") : NULL; file; file = strtok(NULL, ":")) {
        int fd = open(file, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) die("cannot join the cgroup %s", file);
        close(fd);
    }
    cpu_set_t set;
    if (plan.cpus) parse_cpus(plan.cpus, &set);
    if (plan.cpus && sched_setaffinity(0, sizeof set, &set)) die("cannot run on CPUs %s", plan.cpus);
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof "real");
    char *name = length > 0 ? (path[length] = 0, strrchr(path, '/')) : NULL;
    if (!name) die("cannot find this program's folder");
    strcpy(name + 1, "real");
    /* By its own name, so that it shows as what it is in a list of processes. */
    char *emulator = realpath(path, NULL);
    if (!emulator) die("cannot find %s", path);
    execv(emulator, argv);
    die("cannot execute %s", emulator);
}

int main(int argc, char **argv)
{
    seen.requested_ns = now_ns();
    if (argc > 0) {
        const char *name = strrchr(argv[0], '/');
        if (!strncmp(name ? name + 1 : argv[0], "qemu", 4)) become_emulator(argv);
    }
    long round_trips = 0;
    arguments_left = argv + (argc > 0);
    while (*arguments_left && !strncmp(*arguments_left, "--", 2)) {
        const char *option = *arguments_left++;
        if (!strcmp(option, "--")) break;
        if (!strcmp(option, "--help")) { fputs(help, stdout); return 0; }
        if (!strcmp(option, "--channel-latency")) round_trips = number_argument(option, 100000);
        else parse_option(option);
    }
    plan.command = arguments_left;
    if (round_trips) return measure_channel(round_trips);
    check_plan();
    if (plan.die_with_parent) prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    /* Whoever holds the report may not be held up by a command that keeps the descriptor. */
    if (plan.report >= 0 && fcntl(plan.report, F_SETFD, FD_CLOEXEC)) misuse("%s", "--report: no such descriptor");
    load_filter();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("cannot map a page");
    if (plan.gate >= 0) wait_at_gate();
    start_and_watch();
    if (plan.report >= 0)
        for (int i = 0; i < plan.read_count; i++) report_cgroup_file(&plan.reads[i]);
    clean_up();
    seen.cleaned_ns = now_ns();
    if (plan.report >= 0) report_all();
    end_alike();
}
