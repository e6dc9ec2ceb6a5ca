/* agent: the first process of a benchbox guest. It reports over virtio-serial ports and the serial line, runs one
 * command from /image, and powers the guest off. docs/guests.md says what each stage means.
 *
 * The root is what the initramfs has in /image, or, where it has /root-disk, the ext4 file system on the disk whose
 * serial number is in that file.
 *
 *   byte 0x01 on fd 1 (the serial console)  -> modules of /modules -> root -> ports -> request -> command -> power-off
 *
 * Frames on the port benchbox.control are a type byte, the payload's length (32 bits, little endian), the payload.
 * A payload of fields is "key=value", each ended by a NUL.
 *
 *   host to guest:  R fields  run argv (repeated), env (repeated, NAME=VALUE), cwd, uid, gid; data is the serial number
 *                             of the disk that is to be /data, address that of eth0 (a.b.c.d/N)
 *                   P bytes   ping, answered by p with the same bytes
 *                   Q         power off
 *   guest to host:  H fields  hello: protocol
 *                   X         the command was executed: its first instruction is still to come
 *                   D fields  the command has ended: exit_code or signal, resource use, guest durations in ns
 *                   O fields  end of output: how many bytes went to benchbox.output; what the guest saw of its hardware
 *                             and its kernel's settings; program and sha256 of the file that was executed
 *                   F text    the command could not be run
 *
 * The command writes its ready byte to benchbox.ready itself. The agent gives up (a line on the console, power-off)
 * when it cannot go on, and powers off when the host closes benchbox.control: nobody is left to hear of the command.
 *
 *   musl-gcc -std=c11 -O2 -static -Wall -Wextra -Werror -o agent agent.c
 */
#define _GNU_SOURCE
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Not <linux/netlink.h>: musl-gcc does not see the kernel's headers. */
struct netlink_address {
    unsigned short family, pad;
    uint32_t pid, groups;
};
#define KOBJECT_UEVENT 15

#define PROTOCOL 1
#define HEADER_BYTES 5
#define MAX_PAYLOAD 65536
#define MAX_WORDS 512
#define MAX_MODULES 64
#define DEVICES_TIMEOUT_MS 10000
#define ROOT_DISK "/root-disk"
#define FLUSH_TIMEOUT_MS 5000
#define DATA_TIMEOUT_MS 10000

extern char **environ;

enum port { CONTROL, OUTPUT, READY, PORTS };
static const char *const port_names[PORTS] = {"benchbox.control", "benchbox.output", "benchbox.ready"};

struct request {
    char *argv[MAX_WORDS + 1];
    char *env[MAX_WORDS + 1];
    int argc, envc;
    const char *cwd, *data;
    char *address;
    unsigned long uid, gid;
};

struct fields {
    char text[16384];
    size_t length;
};

static int control = -1;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static _Noreturn void power_off(void)
{
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

static _Noreturn void give_up(const char *what, const char *which)
{
    dprintf(1, "\nbenchbox agent: %s%s%s: %s\n", what, *which ? " " : "", which, strerror(errno));
    /* The serial line is slow and a power-off does not wait for it. */
    int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (console >= 0) ioctl(console, 0x5409 /* TCSBRK */, 1);
    power_off();
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

static void put_header(uint8_t header[HEADER_BYTES], char type, uint32_t length)
{
    header[0] = (uint8_t)type;
    for (int byte = 0; byte < 4; byte++) header[1 + byte] = (uint8_t)(length >> (8 * byte));
}

static uint32_t header_length(const uint8_t header[HEADER_BYTES])
{
    uint32_t length = 0;
    for (int byte = 0; byte < 4; byte++) length |= (uint32_t)header[1 + byte] << (8 * byte);
    return length;
}

static int read_all(int fd, void *into, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = read(fd, (char *)into + done, length - done);
        if (got == 0) return 0;
        if (got < 0 && errno != EINTR) return 0;
        if (got > 0) done += (size_t)got;
    }
    return 1;
}

static int write_all(int fd, const void *from, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t put = write(fd, (const char *)from + done, length - done);
        if (put < 0 && errno != EINTR) return 0;
        if (put > 0) done += (size_t)put;
    }
    return 1;
}

/* One write: a blocking port returns from it when the host's socket has the frame. */
static void send_frame(char type, const void *payload, size_t length)
{
    static uint8_t frame[HEADER_BYTES + MAX_PAYLOAD];
    if (length > MAX_PAYLOAD) length = MAX_PAYLOAD;
    put_header(frame, type, (uint32_t)length);
    if (length) memcpy(frame + HEADER_BYTES, payload, length);
    if (!write_all(control, frame, HEADER_BYTES + length)) give_up("cannot write to", port_names[CONTROL]);
}

/* Read a frame; its payload is followed by a NUL that is not part of it. Return its type, 0 when there is none. */
static char read_frame(int fd, char payload[MAX_PAYLOAD + 1], uint32_t *length)
{
    uint8_t header[HEADER_BYTES];
    if (!read_all(fd, header, sizeof header)) return 0;
    *length = header_length(header);
    if (*length > MAX_PAYLOAD || !read_all(fd, payload, *length)) return 0;
    payload[*length] = 0;
    return (char)header[0];
}

static void add_field(struct fields *fields, const char *key, int64_t value)
{
    size_t room = sizeof fields->text - fields->length;
    int needed = snprintf(fields->text + fields->length, room, "%s=%lld", key, (long long)value);
    if (needed >= 0 && (size_t)needed < room) fields->length += (size_t)needed + 1;
}

static int parse_number(const char *text, unsigned long *number)
{
    char *end;
    errno = 0;
    *number = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && *number < UINT32_MAX;
}

static int add_word(char **words, int *count, char *word)
{
    if (*count >= MAX_WORDS) return 0;
    words[(*count)++] = word;
    words[*count] = NULL;
    return 1;
}

static int take_field(struct request *request, char *field)
{
    char *value = strchr(field, '=');
    if (!value) return 0;
    *value++ = 0;
    if (!strcmp(field, "argv")) return add_word(request->argv, &request->argc, value);
    if (!strcmp(field, "env")) return strchr(value, '=') && add_word(request->env, &request->envc, value);
    if (!strcmp(field, "uid")) return parse_number(value, &request->uid);
    if (!strcmp(field, "gid")) return parse_number(value, &request->gid);
    if (!strcmp(field, "data")) {
        request->data = value;
        return *value != 0;
    }
    if (!strcmp(field, "address")) {
        request->address = value;
        return 1;
    }
    if (strcmp(field, "cwd")) return 0;
    request->cwd = value;
    return 1;
}

/* Take apart a payload of `length` bytes that ends in a NUL of its own. The request points into it. */
static int parse_request(char *payload, uint32_t length, struct request *request)
{
    memset(request, 0, sizeof *request);
    request->cwd = "/";
    if (!length || payload[length - 1]) return 0;
    for (uint32_t at = 0; at < length;) {
        char *field = payload + at;
        at += (uint32_t)strlen(field) + 1;
        if (!take_field(request, field)) return 0;
    }
    return request->argc > 0 && *request->argv[0];
}

/* ---- modules and ports ------------------------------------------------------------------------------------------ */

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* File names start with the two digits of the load order. A kernel that has a module built in says EEXIST. */
static void load_modules(void)
{
    struct dirent **entries;
    int count = scandir("/modules", &entries, is_visible, alphasort);
    for (int index = 0; index < count; index++) {
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", entries[index]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) give_up("cannot load", path);
        close(fd);
    }
}

static int read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    if (got < 0) return 0;
    while (got > 0 && text[got - 1] == '\n') got--;
    text[got] = 0;
    return 1;
}

static void find_port(const char *entry, dev_t devices[PORTS])
{
    char path[300], name[64], numbers[32];
    unsigned int major_number, minor_number;
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry);
    if (!read_text(path, name, sizeof name)) return;
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/dev", entry);
    if (!read_text(path, numbers, sizeof numbers)) return;
    if (sscanf(numbers, "%u:%u", &major_number, &minor_number) != 2) return;
    for (int port = 0; port < PORTS; port++)
        if (!strcmp(name, port_names[port])) devices[port] = makedev(major_number, minor_number);
}

static int find_ports(dev_t devices[PORTS])
{
    DIR *folder = opendir("/sys/class/virtio-ports");
    if (folder) {
        for (struct dirent *entry; (entry = readdir(folder));)
            if (is_visible(entry)) find_port(entry->d_name, devices);
        closedir(folder);
    }
    return devices[CONTROL] && devices[OUTPUT] && devices[READY];
}

static int open_uevents(void)
{
    struct netlink_address address = {.family = AF_NETLINK, .groups = 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) give_up("cannot listen to uevents", "");
    return fd;
}

static void wait_for_uevent(int uevents, int64_t deadline_ns, const char *complaint)
{
    char event[4096];
    struct pollfd waited = {.fd = uevents, .events = POLLIN};
    int64_t left_ms = (deadline_ns - now_ns()) / 1000000;
    if (left_ms <= 0) {
        errno = ETIMEDOUT;
        give_up(complaint, "");
    }
    poll(&waited, 1, (int)left_ms);
    while (recv(uevents, event, sizeof event, 0) > 0) {}
}

/* The driver learns the ports' names from the hypervisor after it was loaded, and says so with a uevent. */
static void wait_for_ports(int uevents, dev_t devices[PORTS])
{
    int64_t deadline_ns = now_ns() + DEVICES_TIMEOUT_MS * INT64_C(1000000);
    while (!find_ports(devices)) wait_for_uevent(uevents, deadline_ns, "no virtio-serial ports");
}

static int open_port(enum port port, dev_t device, int flags)
{
    const char *name = port_names[port];
    char path[64];
    snprintf(path, sizeof path, "/dev/%s", name);
    int fd = mknod(path, S_IFCHR | 0600, device) ? -1 : open(path, flags | O_CLOEXEC);
    if (fd < 0) give_up("cannot open", name);
    return fd;
}

/* ---- root ------------------------------------------------------------------------------------------------------- */

static void mount_at(const char *type, const char *target, unsigned long flags, const char *options)
{
    if (mount(type, target, type, flags, options)) give_up("cannot mount", target);
}

static void make_node(const char *path, mode_t mode, unsigned int major_number, unsigned int minor_number)
{
    if (mknod(path, S_IFCHR, makedev(major_number, minor_number)) || chmod(path, mode)) give_up("cannot make", path);
}

static void make_devices(void)
{
    mount_at("tmpfs", "/image/dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k");
    make_node("/image/dev/null", 0666, 1, 3);
    make_node("/image/dev/zero", 0666, 1, 5);
    make_node("/image/dev/full", 0666, 1, 7);
    make_node("/image/dev/random", 0666, 1, 8);
    make_node("/image/dev/urandom", 0666, 1, 9);
    make_node("/image/dev/tty", 0666, 5, 0);
    if (symlink("/proc/self/fd", "/image/dev/fd")) give_up("cannot make", "/image/dev/fd");
    if (mkdir("/image/dev/shm", 01777)) give_up("cannot make", "/image/dev/shm");
}

static dev_t disk_device(const char *entry, const char *serial)
{
    char path[300], text[64];
    unsigned int major_number, minor_number;
    snprintf(path, sizeof path, "/sys/block/%s/serial", entry);
    if (!read_text(path, text, sizeof text) || strcmp(text, serial)) return 0;
    snprintf(path, sizeof path, "/sys/block/%s/dev", entry);
    if (!read_text(path, text, sizeof text)) return 0;
    return sscanf(text, "%u:%u", &major_number, &minor_number) == 2 ? makedev(major_number, minor_number) : 0;
}

static dev_t find_disk(const char *serial)
{
    dev_t device = 0;
    DIR *folder = opendir("/sys/block");
    if (!folder) return 0;
    for (struct dirent *entry; !device && (entry = readdir(folder));)
        if (is_visible(entry)) device = disk_device(entry->d_name, serial);
    closedir(folder);
    return device;
}

static void mount_disk(int uevents, const char *serial)
{
    dev_t device;
    int64_t deadline_ns = now_ns() + DEVICES_TIMEOUT_MS * INT64_C(1000000);
    while (!(device = find_disk(serial))) wait_for_uevent(uevents, deadline_ns, "no disk with the image");
    if (mknod("/dev/root", S_IFBLK | 0600, device)) give_up("cannot make", "/dev/root");
    if (mount("/dev/root", "/image", "ext4", MS_RDONLY | MS_NODEV, NULL)) give_up("cannot mount the disk at", "/image");
}

static void mount_image(int uevents)
{
    char serial[64];
    if (read_text(ROOT_DISK, serial, sizeof serial)) {
        mount_disk(uevents, serial);
        return;
    }
    if (mount("/image", "/image", NULL, MS_BIND, NULL)) give_up("cannot mount", "/image");
    if (mount(NULL, "/image", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL))
        give_up("cannot make read-only", "/image");
}

/* What the command sees is what native and container see: a read-only image with /proc, a small /dev, a fresh /tmp and
 * a read-only /sys. */
static void prepare_root(int uevents)
{
    mount_image(uevents);
    mount_at("proc", "/image/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "/image/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    mount_at("tmpfs", "/image/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    make_devices();
}

static void raise_loopback(void)
{
    struct ifreq interface = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return; /* a kernel without IPv4 has no loopback to raise */
    if (ioctl(fd, SIOCSIFFLAGS, &interface)) give_up("cannot raise the interface", "lo");
    close(fd);
}

static void set_address(int fd, unsigned long what, struct in_addr address, const char *complaint)
{
    struct ifreq interface = {.ifr_name = "eth0"};
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_addr = address};
    memcpy(&interface.ifr_addr, &internet, sizeof internet);
    if (ioctl(fd, what, &interface)) give_up("cannot set of eth0", complaint);
}

/* As in benchbox's own network namespaces (linux/links.py): what another kernel chooses by default is no isolation. */
static void choose_congestion_control(void)
{
    static const char path[] = "/image/proc/sys/net/ipv4/tcp_congestion_control";
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "reno", 4) != 4) give_up("cannot write to", path);
    close(fd);
}

/* Give the network card its address and raise it. The text is "a.b.c.d/N". */
static void raise_card(char *text)
{
    struct in_addr address, mask;
    unsigned long bits;
    struct ifreq interface = {.ifr_name = "eth0", .ifr_flags = IFF_UP | IFF_RUNNING};
    char *slash = strchr(text, '/');
    errno = EINVAL;
    if (slash) *slash++ = 0;
    if (!slash || !parse_number(slash, &bits) || bits < 1 || bits > 32) give_up("no address:", text);
    if (!inet_aton(text, &address)) give_up("no address:", text);
    mask.s_addr = htonl(~UINT32_C(0) << (32 - bits));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) give_up("this kernel has no", "IPv4");
    set_address(fd, SIOCSIFADDR, address, "the address");
    set_address(fd, SIOCSIFNETMASK, mask, "the mask");
    if (ioctl(fd, SIOCSIFFLAGS, &interface)) give_up("cannot raise the interface", "eth0");
    close(fd);
    choose_congestion_control();
}

/* ---- the disk of /data ------------------------------------------------------------------------------------------ */

/* Its driver was loaded long before the request came, which had to wait for other devices. */
static void mount_data(const char *serial)
{
    dev_t device;
    int64_t deadline_ns = now_ns() + DATA_TIMEOUT_MS * INT64_C(1000000);
    while (!(device = find_disk(serial)) && now_ns() < deadline_ns) poll(NULL, 0, 1);
    errno = ETIMEDOUT;
    if (!device) give_up("no disk for /data:", serial);
    if (mknod("/dev/data", S_IFBLK | 0600, device)) give_up("cannot make", "/dev/data");
    if (mount("/dev/data", "/image/data", "ext4", MS_NOSUID | MS_NODEV, NULL)) give_up("cannot mount", "/image/data");
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static _Noreturn void fail_child(int report, const char *step)
{
    dprintf(report, "%s: %s", step, strerror(errno));
    _exit(127);
}

static _Noreturn void execute(const struct request *request, int output, int report)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (chroot("/image") || chdir(request->cwd)) fail_child(report, "cannot enter the working directory");
    int input = open("/dev/null", O_RDONLY);
    if (input < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        fail_child(report, "cannot connect input and output");
    if (input > 2) close(input);
    gid_t group = (gid_t)request->gid;
    if (setgroups(1, &group) || setgid(group) || setuid((uid_t)request->uid)) fail_child(report, "cannot change user");
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) fail_child(report, "cannot be traced");
    environ = (char **)request->env;
    execvp(request->argv[0], request->argv);
    fail_child(report, request->argv[0]);
}

/* Wait for the command's exec. A traced child stops in it before its first instruction, so that X is on its way before
 * the command can write its ready byte, on any number of CPUs; a close-on-exec pipe would leave that to the scheduler. */
static int report_exec(pid_t child, int report)
{
    char failure[256];
    int status;
    if (waitpid(child, &status, 0) != child) give_up("cannot wait for", "the command");
    if (!WIFSTOPPED(status)) {
        ssize_t got = read(report, failure, sizeof failure);
        send_frame('F', failure, got > 0 ? (size_t)got : 0);
        return 0;
    }
    send_frame('X', NULL, 0);
    ptrace(PTRACE_DETACH, child, NULL, NULL);
    return 1;
}

static int64_t timeval_ns(struct timeval value)
{
    return (int64_t)value.tv_sec * 1000000000 + (int64_t)value.tv_usec * 1000;
}

static void report_end(int status, const struct rusage *usage, int64_t started_ns, struct fields *durations)
{
    int64_t ended_ns = now_ns();
    if (WIFSIGNALED(status)) add_field(durations, "signal", WTERMSIG(status));
    else add_field(durations, "exit_code", WEXITSTATUS(status));
    add_field(durations, "user_ns", timeval_ns(usage->ru_utime));
    add_field(durations, "system_ns", timeval_ns(usage->ru_stime));
    add_field(durations, "peak_rss_bytes", (int64_t)usage->ru_maxrss * 1024);
    add_field(durations, "major_faults", usage->ru_majflt);
    add_field(durations, "run_ns", ended_ns - started_ns);
    send_frame('D', durations->text, durations->length);
}

/* Reap everything that has ended (the first process inherits orphans); return whether the command was among it. */
static int reap(pid_t child, int *status, struct rusage *usage)
{
    int found = 0;
    for (;;) {
        int one_status;
        struct rusage one_usage;
        pid_t pid = wait4(-1, &one_status, WNOHANG, &one_usage);
        if (pid <= 0) return found;
        if (pid != child) continue;
        found = 1;
        *status = one_status;
        *usage = one_usage;
    }
}

/* Output on its way from the command's pipe to the port; the command waits while the port takes no more. */
struct relay {
    int from, to;
    char buffer[16384];
    size_t length, done;
    int64_t total_bytes, dropped_bytes;
    int ended;
};

static void relay_write(struct relay *relay, short events)
{
    ssize_t put = events & POLLOUT ? write(relay->to, relay->buffer + relay->done, relay->length - relay->done) : -1;
    if (put > 0) {
        relay->done += (size_t)put;
        relay->total_bytes += put;
    } else if (events & POLLHUP) {
        relay->dropped_bytes += (int64_t)(relay->length - relay->done);
        relay->done = relay->length;
    }
    if (relay->done == relay->length) relay->done = relay->length = 0;
}

static void relay_read(struct relay *relay)
{
    ssize_t got = read(relay->from, relay->buffer, sizeof relay->buffer);
    if (got > 0) relay->length = (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) relay->ended = 1;
}

/* What poll() is to wait for so that the relay can go on. */
static struct pollfd relay_wait(const struct relay *relay)
{
    if (relay->length) return (struct pollfd){.fd = relay->to, .events = POLLOUT};
    return (struct pollfd){.fd = relay->ended ? -1 : relay->from, .events = POLLIN};
}

static void relay_step(struct relay *relay, short events)
{
    if (!events) return;
    if (relay->length) relay_write(relay, events);
    else relay_read(relay);
}

static void watch(pid_t child, int signals, struct relay *relay, int64_t started_ns, struct fields *durations)
{
    for (;;) {
        struct pollfd waited[3] = {{.fd = signals, .events = POLLIN}, relay_wait(relay), {.fd = control}};
        if (poll(waited, 3, -1) < 0) continue;
        if (waited[2].revents & (POLLHUP | POLLERR)) power_off();
        relay_step(relay, waited[1].revents);
        if (waited[0].revents) {
            struct signalfd_siginfo info;
            struct rusage usage;
            int status;
            if (read(signals, &info, sizeof info) < 0) continue;
            if (!reap(child, &status, &usage)) continue;
            report_end(status, &usage, started_ns, durations);
            return;
        }
    }
}

/* The command has ended: end what it left, and hand on the rest of the output, within a deadline. */
static void flush_output(struct relay *relay)
{
    int64_t deadline_ns = now_ns() + FLUSH_TIMEOUT_MS * INT64_C(1000000);
    kill(-1, SIGKILL);
    while (!relay->ended || relay->length) {
        struct pollfd waited = relay_wait(relay);
        int64_t left_ms = (deadline_ns - now_ns()) / 1000000;
        if (left_ms <= 0 || poll(&waited, 1, (int)left_ms) <= 0) break;
        relay_step(relay, waited.revents);
    }
    relay->dropped_bytes += (int64_t)(relay->length - relay->done);
}

/* How many processes this guest's kernel killed for memory, -1 where it does not count them. */
static int64_t oom_kills(void)
{
    static char counters[16384];
    if (!read_text("/image/proc/vmstat", counters, sizeof counters)) return -1;
    const char *line = strstr(counters, "\noom_kill ");
    return line ? atoll(line + strlen("\noom_kill ")) : -1;
}

/* Who runs this guest, by CPUID leaf 0x40000000: "KVMKVMKVM", "TCGTCGTCGTCG"; empty where no hypervisor says so. */
static void hypervisor(char name[13])
{
    name[0] = 0;
#if defined(__x86_64__) || defined(__i386__)
    unsigned int highest, word[3] = {0}, ecx;
    if (!__get_cpuid(1, &highest, &word[0], &ecx, &word[1]) || !(ecx & 1u << 31)) return;
    __cpuid(0x40000000, highest, word[0], word[1], word[2]);
    memcpy(name, word, 12);
    name[12] = 0;
#endif
}

static void add_text(struct fields *fields, const char *key, const char *value)
{
    size_t room = sizeof fields->text - fields->length;
    int length = snprintf(fields->text + fields->length, room, "%s=%s", key, value);
    if (length > 0 && (size_t)length < room) fields->length += (size_t)length + 1;
}

/* What the processor can do, as the kernel found it: one line of /proc/cpuinfo ("flags", on arm64 "Features"). */
static void add_cpu_flags(struct fields *fields)
{
    static char text[16384];
    if (!read_text("/image/proc/cpuinfo", text, sizeof text)) return;
    char *line = strstr(text, "\nflags");
    if (!line) line = strstr(text, "\nFeatures");
    char *value = line ? strchr(line, ':') : NULL;
    if (!value) return;
    value[strcspn(value, "\n")] = 0;
    add_text(fields, "cpu_flags", value + 1 + strspn(value + 1, " "));
}

static void add_mitigations(struct fields *fields)
{
    struct dirent **entries;
    int count = scandir("/sys/devices/system/cpu/vulnerabilities", &entries, is_visible, alphasort);
    for (int index = 0; index < count; index++) {
        char path[320], key[280], text[256];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/vulnerabilities/%s", entries[index]->d_name);
        snprintf(key, sizeof key, "mitigation.%s", entries[index]->d_name);
        if (read_text(path, text, sizeof text)) add_text(fields, key, text);
    }
}

/* Time, in clock ticks, in which a CPU of this guest had work and did not run: the eighth number of /proc/stat. */
static void add_steal(struct fields *fields)
{
    char text[512];
    long long ticks;
    if (!read_text("/image/proc/stat", text, sizeof text)) return;
    if (sscanf(text, "cpu %*d %*d %*d %*d %*d %*d %*d %lld", &ticks) != 1) return;
    add_field(fields, "steal_ms", ticks * 1000 / sysconf(_SC_CLK_TCK));
}

/* ---- the program that was executed -------------------------------------------------------------------------------- */

/* FIPS 180-4, SHA-256. */
struct sha256 {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t length;
};

static const uint32_t sha256_start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

static void sha256_block(uint32_t state[8], const uint8_t block[64])
{
    uint32_t schedule[64] = {0}, v[8];
    for (int t = 0; t < 16; t++) {
        schedule[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
                      (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    }
    for (int t = 16; t < 64; t++) {
        uint32_t old = schedule[t - 15], young = schedule[t - 2];
        schedule[t] = schedule[t - 16] + (rotated(old, 7) ^ rotated(old, 18) ^ old >> 3) + schedule[t - 7] +
                      (rotated(young, 17) ^ rotated(young, 19) ^ young >> 10);
    }
    memcpy(v, state, sizeof v);
    for (int t = 0; t < 64; t++) {
        uint32_t chosen = (v[4] & v[5]) ^ (~v[4] & v[6]), majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        uint32_t first = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) + chosen +
                         sha256_constants[t] + schedule[t];
        uint32_t second = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) + majority;
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += first;
        v[0] = first + second;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256_add(struct sha256 *sum, const uint8_t *bytes, size_t length)
{
    for (size_t done = 0; done < length; done++) {
        sum->block[sum->length++ % 64] = bytes[done];
        if (sum->length % 64 == 0) sha256_block(sum->state, sum->block);
    }
}

static void sha256_text(struct sha256 *sum, char text[65])
{
    uint64_t bits = sum->length * 8;
    uint8_t length[8];
    for (int byte = 0; byte < 8; byte++) length[byte] = (uint8_t)(bits >> (56 - 8 * byte));
    sha256_add(sum, (const uint8_t[]){0x80}, 1);
    while (sum->length % 64 != 56) sha256_add(sum, (const uint8_t[]){0}, 1);
    sha256_add(sum, length, sizeof length);
    for (int word = 0; word < 8; word++) snprintf(text + 8 * word, 9, "%08x", sum->state[word]);
}

static int sha256_file(const char *path, char text[65])
{
    static uint8_t bytes[65536];
    struct sha256 sum = {.length = 0};
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    memcpy(sum.state, sha256_start, sizeof sum.state);
    while ((got = read(fd, bytes, sizeof bytes)) > 0) sha256_add(&sum, bytes, (size_t)got);
    close(fd);
    sha256_text(&sum, text);
    return got == 0;
}

/* Say of the command's file, as it is inside the image, its path without links and its sum. The image is read-only and
 * the command has ended. One that was looked for in PATH is not told. */
static void add_program(struct fields *fields, const struct request *request)
{
    struct program { char path[4096], sum[65]; } found;
    int ends[2];
    if (!strchr(request->argv[0], '/') || pipe2(ends, O_CLOEXEC)) return;
    pid_t child = fork();
    if (child == 0) {
        memset(&found, 0, sizeof found);
        if (chroot("/image") || chdir(request->cwd) || !realpath(request->argv[0], found.path)) _exit(1);
        _exit(!sha256_file(found.path, found.sum) || !write_all(ends[1], &found, sizeof found));
    }
    close(ends[1]);
    if (child > 0 && read_all(ends[0], &found, sizeof found)) {
        add_text(fields, "program", found.path);
        add_text(fields, "sha256", found.sum);
    }
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
}

static void report_output(const struct relay *relay, const struct request *request)
{
    static struct fields fields;
    struct sysinfo memory;
    char text[64];
    sysinfo(&memory);
    add_field(&fields, "output_bytes", relay->total_bytes);
    add_field(&fields, "dropped_bytes", relay->dropped_bytes);
    add_field(&fields, "memory_bytes", (int64_t)memory.totalram * (int64_t)memory.mem_unit);
    add_field(&fields, "oom_kills", oom_kills());
    if (read_text("/sys/devices/system/cpu/online", text, sizeof text)) add_text(&fields, "cpus_online", text);
    if (read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource", text, sizeof text))
        add_text(&fields, "clocksource", text);
    hypervisor(text);
    if (*text) add_text(&fields, "hypervisor", text);
    if (read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text)) add_text(&fields, "huge_pages", text);
    add_cpu_flags(&fields);
    add_mitigations(&fields);
    add_steal(&fields);
    add_program(&fields, request);
    send_frame('O', fields.text, fields.length);
}

static void run(struct request *request, int output, struct fields *durations)
{
    static struct relay relay;
    int pipe_ends[2], report[2];
    sigset_t child_signal;
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, NULL);
    int signals = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0 || pipe2(pipe_ends, O_CLOEXEC) || pipe2(report, O_CLOEXEC)) give_up("cannot make pipes", "");
    int64_t forked_ns = now_ns();
    pid_t child = fork();
    if (child < 0) give_up("cannot fork", "");
    if (child == 0) execute(request, pipe_ends[1], report[1]);
    close(pipe_ends[1]);
    close(report[1]);
    if (!report_exec(child, report[0])) return;
    int64_t executed_ns = now_ns();
    add_field(durations, "exec_ns", executed_ns - forked_ns);
    fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
    relay.from = pipe_ends[0];
    relay.to = output;
    watch(child, signals, &relay, executed_ns, durations);
    flush_output(&relay);
    report_output(&relay, request);
}

/* ---- main ------------------------------------------------------------------------------------------------------- */

static _Noreturn void answer_pings(char *payload)
{
    uint32_t length;
    for (;;) {
        char type = read_frame(control, payload, &length);
        if (type != 'P') power_off();
        send_frame('p', payload, length);
    }
}

static void lap(struct fields *durations, const char *key, int64_t *since_ns)
{
    int64_t at_ns = now_ns();
    add_field(durations, key, at_ns - *since_ns);
    *since_ns = at_ns;
}

int main(void)
{
    static char payload[MAX_PAYLOAD + 1];
    static struct request request;
    static struct fields durations;
    dev_t devices[PORTS] = {0};
    uint32_t length;
    if (getpid() != 1) {
        fputs("agent: runs only as the first process of a guest\n", stderr);
        return 2;
    }
    if (write(1, "\1", 1) != 1) power_off();
    int64_t since_ns = 0;
    lap(&durations, "boot_ns", &since_ns); /* the guest's monotonic clock starts with its kernel */
    mount_at("sysfs", "/sys", 0, NULL);
    int uevents = open_uevents();
    load_modules();
    lap(&durations, "modules_ns", &since_ns);
    prepare_root(uevents);
    raise_loopback();
    lap(&durations, "root_ns", &since_ns);
    wait_for_ports(uevents, devices);
    control = open_port(CONTROL, devices[CONTROL], O_RDWR);
    int output = open_port(OUTPUT, devices[OUTPUT], O_WRONLY | O_NONBLOCK);
    make_node("/image/dev/ready", 0666, major(devices[READY]), minor(devices[READY]));
    struct fields hello = {.length = 0};
    add_field(&hello, "protocol", PROTOCOL);
    send_frame('H', hello.text, hello.length);
    lap(&durations, "ports_ns", &since_ns);
    if (read_frame(control, payload, &length) != 'R' || !parse_request(payload, length, &request)) {
        errno = EBADMSG;
        give_up("cannot read the request", "");
    }
    lap(&durations, "request_ns", &since_ns);
    if (request.data) {
        mount_data(request.data);
        lap(&durations, "data_ns", &since_ns);
    }
    if (request.address) raise_card(request.address);
    run(&request, output, &durations);
    answer_pings(payload);
}
