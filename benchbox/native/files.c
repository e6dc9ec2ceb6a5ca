/* files: what operations on files take, by this program's own clock (CLOCK_MONOTONIC, ns).
 *
 *   files metadata FOLDER COUNT   makes FOLDER and COUNT empty files in it, looks at each, removes each, and brings to
 *                                 the device what that changed. Prints count, create_ns, stat_ns, unlink_ns, sync_ns.
 *   files copy-up FILE            writes one byte into FILE, and again: from before it is opened until it is closed.
 *                                 Prints size_bytes, first_ns, second_ns, and copied: whether FILE is another file since
 *                                 the first write, because it lay in a lower layer of an overlay.
 *
 * One `name=value` a line. Exit status 1 with a message on standard error for whatever does not go as it should.
 *
 *   cc -O2 -static -o files files.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_FILES 1000000

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static _Noreturn void fail(const char *what, const char *which)
{
    fprintf(stderr, "files: %s %s: %s\n", what, which, strerror(errno));
    exit(1);
}

static void say(const char *name, int64_t value)
{
    printf("%s=%lld\n", name, (long long)value);
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

static void create(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || close(fd)) fail("cannot make", name);
}

static void look(const char *name)
{
    struct stat status;
    if (stat(name, &status) || !S_ISREG(status.st_mode)) fail("cannot look at", name);
}

static void discard(const char *name)
{
    if (unlink(name)) fail("cannot remove", name);
}

static int64_t each(long count, void (*operation)(const char *name))
{
    char name[32];
    int64_t started_ns = now_ns();
    for (long number = 0; number < count; number++) {
        snprintf(name, sizeof name, "f%ld", number);
        operation(name);
    }
    return now_ns() - started_ns;
}

static int64_t sync_folder(const char *folder)
{
    int64_t started_ns = now_ns();
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) || close(fd)) fail("cannot bring to the device", folder);
    return now_ns() - started_ns;
}

static int metadata(const char *folder, long count)
{
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (home < 0 || mkdir(folder, 0755) || chdir(folder)) fail("cannot make", folder);
    int64_t create_ns = each(count, create);
    int64_t stat_ns = each(count, look);
    int64_t sync_ns = sync_folder(folder);
    int64_t unlink_ns = each(count, discard);
    /* Only an empty folder can be removed: every file has gone. */
    if (fchdir(home) || rmdir(folder)) fail("cannot remove", folder);
    say("count", count);
    say("create_ns", create_ns);
    say("stat_ns", stat_ns);
    say("sync_ns", sync_ns);
    say("unlink_ns", unlink_ns);
    return 0;
}

/* ---- copy-up ---------------------------------------------------------------------------------------------------- */

static int64_t write_byte(const char *path, char byte)
{
    int64_t started_ns = now_ns();
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) fail("cannot open", path);
    if (pwrite(fd, &byte, 1, 0) != 1) fail("cannot write to", path);
    if (close(fd)) fail("cannot close", path);
    return now_ns() - started_ns;
}

/* What the first page of the file holds; mapped, it stays the page of the file that was opened. */
static const volatile char *mapped(const char *path, struct stat *status)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, status)) fail("cannot open", path);
    void *page = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED || close(fd)) fail("cannot map", path);
    return page;
}

static int copy_up(const char *path)
{
    struct stat status;
    /* What was mapped before a file is copied up keeps showing the lower one: Documentation/filesystems/overlayfs.rst. */
    const volatile char *before = mapped(path, &status);
    errno = EINVAL;
    if (!status.st_size) fail("nothing is in", path);
    char byte = (char)(*before ^ 0x5a);
    int64_t first_ns = write_byte(path, byte);
    int copied = *before != byte;
    int64_t second_ns = write_byte(path, (char)(byte ^ 0xff));
    errno = EIO;
    if (*mapped(path, &status) != (char)(byte ^ 0xff)) fail("another byte than was written is in", path);
    say("size_bytes", status.st_size);
    say("first_ns", first_ns);
    say("second_ns", second_ns);
    say("copied", copied);
    return 0;
}

int main(int argc, char **argv)
{
    char *end;
    if (argc == 3 && !strcmp(argv[1], "copy-up")) return copy_up(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "metadata")) {
        errno = 0;
        long count = strtol(argv[3], &end, 10);
        if (!errno && end != argv[3] && !*end && count > 0 && count <= MOST_FILES) return metadata(argv[2], count);
    }
    fputs("usage: files metadata FOLDER COUNT | files copy-up FILE\n", stderr);
    return 2;
}
